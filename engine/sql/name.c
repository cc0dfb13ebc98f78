/*
 * name.c - what an identifier token is called: folding, unquoting and U&"" escapes, as the server
 * does them before it looks a name up.
 */
#include <string.h>

#include "engine/sql/scan.h"

/* A name under construction. Bytes beyond the server's limit are counted, not kept. */
typedef struct name_buf {
    char *bytes;
    size_t len;
    bool cut;
} name_buf;

/* Adds one whole character, so that a name is never cut inside one. */
static void add_character(name_buf *name, const char *bytes, size_t len)
{
    if (name->cut || name->len + len > MB_SQL_NAME_SIZE - 1) {
        name->cut = true;
        return;
    }
    memcpy(name->bytes + name->len, bytes, len);
    name->len += len;
}

static void add_codepoint(name_buf *name, uint32_t code)
{
    char bytes[4];
    if (code < 0x80) {
        bytes[0] = (char)code;
        add_character(name, bytes, 1);
    } else if (code < 0x800) {
        bytes[0] = (char)(0xc0 | (code >> 6));
        bytes[1] = (char)(0x80 | (code & 0x3f));
        add_character(name, bytes, 2);
    } else if (code < 0x10000) {
        bytes[0] = (char)(0xe0 | (code >> 12));
        bytes[1] = (char)(0x80 | ((code >> 6) & 0x3f));
        bytes[2] = (char)(0x80 | (code & 0x3f));
        add_character(name, bytes, 3);
    } else {
        bytes[0] = (char)(0xf0 | (code >> 18));
        bytes[1] = (char)(0x80 | ((code >> 12) & 0x3f));
        bytes[2] = (char)(0x80 | ((code >> 6) & 0x3f));
        bytes[3] = (char)(0x80 | (code & 0x3f));
        add_character(name, bytes, 4);
    }
}

/* How many bytes the character at text[pos] has, never beyond `end`. */
static size_t character_length(const char *text, size_t pos, size_t end)
{
    unsigned char c = (unsigned char)text[pos];
    size_t len = c < 0xc0 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    return len <= end - pos ? len : end - pos;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Reads `count` hex digits at `pos`; false if there are fewer. */
static bool read_hex(const char *text, size_t pos, size_t end, size_t count, uint32_t *code)
{
    *code = 0;
    if (count > end - pos)
        return false;
    for (size_t i = 0; i < count; i++) {
        int digit = hex_digit(text[pos + i]);
        if (digit < 0)
            return false;
        *code = *code << 4 | (uint32_t)digit;
    }
    return true;
}

/* The escape at text[*pos] (just behind the escape character): \XXXX or \+XXXXXX. */
static bool read_escape(const char *text, size_t *pos, size_t end, uint32_t *code)
{
    bool longer = *pos < end && text[*pos] == '+';
    size_t count = longer ? 6 : 4;
    if (longer)
        ++*pos;
    if (!read_hex(text, *pos, end, count, code))
        return false;
    *pos += count;
    return *code > 0 && *code <= 0x10ffff;
}

static bool unescape(const char *text, size_t pos, size_t end, char escape, name_buf *name)
{
    uint32_t high = 0; /* the first half of a surrogate pair */
    while (pos < end) {
        if (text[pos] != escape || (pos + 1 < end && text[pos + 1] == escape)) {
            if (high)
                return false;
            size_t len = character_length(text, pos, end);
            bool doubled = text[pos] == escape || text[pos] == '"';
            add_character(name, text + pos, len);
            pos += doubled ? 2 : len;
            continue;
        }
        uint32_t code = 0;
        pos++;
        if (!read_escape(text, &pos, end, &code))
            return false;
        bool second = code >= 0xdc00 && code <= 0xdfff;
        if (second != (high != 0))
            return false;
        if (second) {
            code = 0x10000 + ((high & 0x3ff) << 10) + (code & 0x3ff);
            high = 0;
        } else if (code >= 0xd800 && code <= 0xdbff) {
            high = code;
            continue;
        }
        add_codepoint(name, code);
    }
    return high == 0;
}

bool mb_token_name(const char *text, const mb_token *token, char escape,
                   char name[MB_SQL_NAME_SIZE])
{
    name_buf out = {name, 0, false};
    size_t pos = token->begin;
    bool ok = true;
    if (token->kind == MB_TOKEN_WORD) {
        while (pos < token->end) {
            size_t len = character_length(text, pos, token->end);
            char c = text[pos];
            if (c >= 'A' && c <= 'Z')
                c = (char)(c + ('a' - 'A'));
            add_character(&out, len == 1 ? &c : text + pos, len);
            pos += len;
        }
    } else if (token->kind == MB_TOKEN_QUOTED && text[pos] == '"') {
        for (pos++; pos < token->end - 1;) {
            size_t len = character_length(text, pos, token->end - 1);
            add_character(&out, text + pos, len);
            pos += text[pos] == '"' ? 2 : len;
        }
    } else if (token->kind == MB_TOKEN_QUOTED) {
        ok = unescape(text, pos + 3, token->end - 1, escape, &out);
    } else {
        ok = false;
    }
    name[out.len] = '\0';
    return ok && out.len > 0;
}
