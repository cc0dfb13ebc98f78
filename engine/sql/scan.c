/*
 * scan.c - SQL text to tokens, by PostgreSQL's own lexical rules.
 *
 * Hand-written rather than taken from libpg_query: that one parses whole statements only, knows one
 * server version, and gives up on text it can't parse; boundaries must be right for any text. Every
 * function is linear in what it consumes, and nothing is looked at more than twice.
 */
#include "engine/sql/scan.h"

#include <string.h>

enum { SPACE = 1, IDENT_START = 2, DIGIT = 4, OPERATOR = 8 };

/* clang-format off */
static const unsigned char classes[256] = {
    ['\t'] = SPACE, ['\n'] = SPACE, ['\v'] = SPACE, ['\f'] = SPACE, ['\r'] = SPACE, [' '] = SPACE,
    ['0' ... '9'] = DIGIT,
    ['A' ... 'Z'] = IDENT_START, ['a' ... 'z'] = IDENT_START, ['_'] = IDENT_START,
    [0x80 ... 0xff] = IDENT_START,
    ['~'] = OPERATOR, ['!'] = OPERATOR, ['@'] = OPERATOR, ['#'] = OPERATOR, ['^'] = OPERATOR,
    ['&'] = OPERATOR, ['|'] = OPERATOR, ['`'] = OPERATOR, ['?'] = OPERATOR, ['+'] = OPERATOR,
    ['-'] = OPERATOR, ['*'] = OPERATOR, ['/'] = OPERATOR, ['%'] = OPERATOR, ['<'] = OPERATOR,
    ['>'] = OPERATOR, ['='] = OPERATOR,
};
/* clang-format on */

#define IS(c, mask) ((classes[(unsigned char)(c)] & (mask)) != 0)

/* The byte at `pos`, or 0 behind the end. A real zero byte takes the same way: it is punctuation.
 */
static char peek(const mb_scan *scan, size_t pos)
{
    return pos < scan->end ? scan->text[pos] : '\0';
}

static mb_token unterminated(mb_scan *scan, size_t begin, const char *what)
{
    scan->pos = scan->end;
    return (mb_token){MB_TOKEN_UNTERMINATED, begin, scan->end, what};
}

static mb_token token_until(mb_scan *scan, mb_token_kind kind, size_t begin, size_t end)
{
    scan->pos = end;
    return (mb_token){kind, begin, end, NULL};
}

/* The end of a -- comment: its line's end, which does not belong to it. */
static size_t line_comment_end(const mb_scan *scan, size_t pos)
{
    while (pos < scan->end && scan->text[pos] != '\n' && scan->text[pos] != '\r')
        pos++;
    return pos;
}

/* The end of a nested block comment that opens at `pos`, or 0 when it has none. */
static size_t block_comment_end(const mb_scan *scan, size_t pos)
{
    size_t depth = 1;
    pos += 2;
    while (pos + 1 < scan->end) {
        if (scan->text[pos] == '*' && scan->text[pos + 1] == '/') {
            pos += 2;
            if (--depth == 0)
                return pos;
        } else if (scan->text[pos] == '/' && scan->text[pos + 1] == '*') {
            pos += 2;
            depth++;
        } else {
            pos++;
        }
    }
    return 0;
}

/*
 * A string literal goes on when only white space with at least one line end (and -- comments) lies
 * between its closing quote and another quote. Returns the place behind that quote, or 0.
 */
static size_t string_continuation(const mb_scan *scan, size_t pos)
{
    bool newline = false;
    while (pos < scan->end) {
        char c = scan->text[pos];
        if (IS(c, SPACE)) {
            newline = newline || c == '\n' || c == '\r';
            pos++;
        } else if (c == '-' && peek(scan, pos + 1) == '-') {
            pos = line_comment_end(scan, pos);
        } else {
            break;
        }
    }
    return newline && peek(scan, pos) == '\'' ? pos + 1 : 0;
}

/* A '...' literal whose opening quote is at `quote`. In E'' a backslash hides the next byte. */
static mb_token scan_string(mb_scan *scan, size_t begin, size_t quote, bool escapes)
{
    const char *text = scan->text;
    size_t pos = quote + 1;
    for (;;) {
        while (pos < scan->end && text[pos] != '\'' && !(escapes && text[pos] == '\\'))
            pos++;
        if (pos >= scan->end)
            return unterminated(scan, begin, "unterminated quoted string");
        if (text[pos] == '\\' || peek(scan, pos + 1) == '\'') {
            pos += 2;
            continue;
        }
        size_t more = string_continuation(scan, pos + 1);
        if (!more)
            return token_until(scan, MB_TOKEN_STRING, begin, pos + 1);
        pos = more;
    }
}

static mb_token scan_quoted_identifier(mb_scan *scan, size_t begin, size_t quote)
{
    size_t pos = quote + 1;
    while (pos < scan->end) {
        const char *found = memchr(scan->text + pos, '"', scan->end - pos);
        if (!found)
            break;
        pos = (size_t)(found - scan->text);
        if (peek(scan, pos + 1) != '"')
            return token_until(scan, MB_TOKEN_QUOTED, begin, pos + 1);
        pos += 2;
    }
    return unterminated(scan, begin, "unterminated quoted identifier");
}

/*
 * $1, $$...$$ and $tag$...$tag$; any other $ is a stray byte. The tag follows the rules of an
 * unquoted identifier, without $. (A $ behind the characters of an identifier never gets here: it
 * belongs to it.)
 */
static mb_token scan_dollar(mb_scan *scan, size_t begin)
{
    size_t pos = begin + 1;
    if (IS(peek(scan, pos), DIGIT)) {
        while (IS(peek(scan, pos), DIGIT))
            pos++;
        return token_until(scan, MB_TOKEN_PARAM, begin, pos);
    }
    if (IS(peek(scan, pos), IDENT_START)) {
        while (IS(peek(scan, pos), IDENT_START | DIGIT))
            pos++;
    }
    if (peek(scan, pos) != '$')
        return token_until(scan, MB_TOKEN_PUNCTUATION, begin, begin + 1);
    size_t tag_length = pos + 1 - begin;
    const char *close =
        memmem(scan->text + pos + 1, scan->end - pos - 1, scan->text + begin, tag_length);
    if (!close)
        return unterminated(scan, begin, "unterminated dollar-quoted string");
    return token_until(scan, MB_TOKEN_STRING, begin, (size_t)(close - scan->text) + tag_length);
}

static size_t digits_end(const mb_scan *scan, size_t pos)
{
    while (IS(peek(scan, pos), DIGIT) || peek(scan, pos) == '_')
        pos++;
    return pos;
}

/*
 * Decimal, fraction, exponent, and the 0x, 0o, 0b of PostgreSQL 16. Letters stuck to a number are
 * left for the next token: the server refuses them (15 and newer) or reads them as a word (14).
 */
static mb_token scan_number(mb_scan *scan, size_t begin)
{
    size_t pos = begin;
    char radix = (char)(peek(scan, pos + 1) | 0x20);
    if (peek(scan, pos) == '0' && (radix == 'x' || radix == 'o' || radix == 'b') &&
        IS(peek(scan, pos + 2), DIGIT | IDENT_START)) {
        pos += 2;
        while (IS(peek(scan, pos), DIGIT | IDENT_START))
            pos++;
        return token_until(scan, MB_TOKEN_NUMBER, begin, pos);
    }
    pos = digits_end(scan, pos);
    if (peek(scan, pos) == '.' && peek(scan, pos + 1) != '.')
        pos = digits_end(scan, pos + 1);
    if ((peek(scan, pos) | 0x20) == 'e') {
        size_t sign = peek(scan, pos + 1) == '+' || peek(scan, pos + 1) == '-' ? 1 : 0;
        if (IS(peek(scan, pos + 1 + sign), DIGIT))
            pos = digits_end(scan, pos + 1 + sign);
    }
    return token_until(scan, MB_TOKEN_NUMBER, begin, pos);
}

/* A run of operator characters; a comment ends it, and so does a trailing + or - of most runs. */
static mb_token scan_operator(mb_scan *scan, size_t begin)
{
    const char *text = scan->text;
    size_t pos = begin;
    bool special = false;
    while (pos < scan->end && IS(text[pos], OPERATOR)) {
        char next = peek(scan, pos + 1);
        if ((text[pos] == '-' && next == '-') || (text[pos] == '/' && next == '*'))
            break;
        special = special || strchr("~!@#^&|`?%", text[pos]);
        pos++;
    }
    /* For SQL's sake "=-" is two operators; only a run with one of these may end in a sign. */
    while (!special && pos > begin + 1 && (text[pos - 1] == '+' || text[pos - 1] == '-'))
        pos--;
    return token_until(scan, MB_TOKEN_OPERATOR, begin, pos);
}

/* Words, and the strings and identifiers that a letter before the quote introduces. */
static mb_token scan_word(mb_scan *scan, size_t begin)
{
    char letter = (char)(scan->text[begin] | 0x20);
    char next = peek(scan, begin + 1);
    if (next == '\'' && letter == 'e')
        return scan_string(scan, begin, begin + 1, true);
    if (next == '\'' && (letter == 'b' || letter == 'x' || letter == 'n'))
        return scan_string(scan, begin, begin + 1, false);
    if (next == '&' && letter == 'u') {
        if (peek(scan, begin + 2) == '\'')
            return scan_string(scan, begin, begin + 2, false);
        if (peek(scan, begin + 2) == '"')
            return scan_quoted_identifier(scan, begin, begin + 2);
    }
    size_t pos = begin + 1;
    while (pos < scan->end && (IS(scan->text[pos], IDENT_START | DIGIT) || scan->text[pos] == '$'))
        pos++;
    return token_until(scan, MB_TOKEN_WORD, begin, pos);
}

void mb_scan_init(mb_scan *scan, const char *text, size_t begin, size_t end)
{
    if (begin == 0 && end >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        begin = 3;
    *scan = (mb_scan){text, begin, end, false};
}

mb_token mb_scan_next(mb_scan *scan)
{
    for (;;) {
        while (scan->pos < scan->end && IS(scan->text[scan->pos], SPACE))
            scan->pos++;
        size_t begin = scan->pos;
        if (begin >= scan->end)
            return (mb_token){MB_TOKEN_END, scan->end, scan->end, NULL};

        char c = scan->text[begin];
        char next = peek(scan, begin + 1);
        if ((c == '-' && next == '-') || (c == '/' && next == '*')) {
            size_t end = c == '-' ? line_comment_end(scan, begin) : block_comment_end(scan, begin);
            if (!end)
                return unterminated(scan, begin, "unterminated /* comment");
            scan->pos = end;
            if (scan->comments)
                return (mb_token){MB_TOKEN_COMMENT, begin, end, NULL};
            continue;
        }
        if (IS(c, IDENT_START))
            return scan_word(scan, begin);
        if (IS(c, DIGIT) || (c == '.' && IS(next, DIGIT)))
            return scan_number(scan, begin);
        if (IS(c, OPERATOR))
            return scan_operator(scan, begin);
        if (c == '\'')
            return scan_string(scan, begin, begin, false);
        if (c == '"')
            return scan_quoted_identifier(scan, begin, begin);
        if (c == '$')
            return scan_dollar(scan, begin);
        if (c == '\\')
            return token_until(scan, MB_TOKEN_BACKSLASH, begin, begin + 1);
        size_t length = c == '.' && next == '.' ? 2 : 1;
        return token_until(scan, MB_TOKEN_PUNCTUATION, begin, begin + length);
    }
}

bool mb_token_is(const char *text, const mb_token *token, const char *word)
{
    if (token->kind != MB_TOKEN_WORD)
        return false;
    for (size_t pos = token->begin; pos < token->end; pos++, word++) {
        char c = text[pos];
        if (c >= 'A' && c <= 'Z')
            c = (char)(c + ('a' - 'A'));
        if (c != *word) /* also at the end of `word`: a token holds no NUL */
            return false;
    }
    return *word == '\0';
}

bool mb_token_is_char(const char *text, const mb_token *token, char c)
{
    return token->kind == MB_TOKEN_PUNCTUATION && token->end - token->begin == 1 &&
           text[token->begin] == c;
}
