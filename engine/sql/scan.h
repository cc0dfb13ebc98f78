/*
 * scan.h - SQL text to tokens, by PostgreSQL's own lexical rules (scan.l of 14 to 18, with
 * standard_conforming_strings on, the default since 9.1).
 *
 * A scanner only looks: it owns nothing, allocates nothing and never changes the text. All offsets
 * are 0-based bytes, ranges are half-open [begin, end). Runs in any thread.
 */
#ifndef MB_SQL_SCAN_H
#define MB_SQL_SCAN_H

#include "engine/base/base.h"

typedef enum mb_token_kind {
    MB_TOKEN_END,         /* nothing is left; begin == end == the scanner's end */
    MB_TOKEN_WORD,        /* a keyword or an unquoted identifier */
    MB_TOKEN_QUOTED,      /* "..." or U&"..." */
    MB_TOKEN_STRING,      /* '...', E'', B'', X'', N'', U&'' with continuations, or $tag$...$tag$ */
    MB_TOKEN_NUMBER,      /* 1, 1.5e-3, 0x1F, 1_000 */
    MB_TOKEN_PARAM,       /* $1 */
    MB_TOKEN_OPERATOR,    /* a run of operator characters */
    MB_TOKEN_PUNCTUATION, /* one of , ( ) [ ] . ; : or any other byte; ".." is one token */
    MB_TOKEN_COMMENT,     /* only if asked for: a -- comment without its line end, or a block */
    MB_TOKEN_BACKSLASH,   /* a \ outside of quotes: psql's, never SQL */
    MB_TOKEN_UNTERMINATED /* a quote or comment that the text's end cuts off; `what` names it */
} mb_token_kind;

typedef struct mb_token {
    mb_token_kind kind;
    size_t begin;
    size_t end;
    const char *what; /* MB_TOKEN_UNTERMINATED: "unterminated quoted string" and the like, static */
} mb_token;

typedef struct mb_scan {
    const char *text;
    size_t pos; /* where the next token is looked for; may be set by the owner */
    size_t end;
    bool comments; /* hand out comments as tokens (false: skip them) */
} mb_scan;

/* Scans text[begin, end). A UTF-8 byte order mark at byte 0 of the text is skipped. */
void mb_scan_init(mb_scan *scan, const char *text, size_t begin, size_t end);

/* The next token. After MB_TOKEN_END and MB_TOKEN_UNTERMINATED it stays at the end. */
mb_token mb_scan_next(mb_scan *scan);

/* Whether the token is the unquoted word `word` (given in lower case), in any case. */
bool mb_token_is(const char *text, const mb_token *token, const char *word);

/* Whether the token is the single byte `c` of punctuation. */
bool mb_token_is_char(const char *text, const mb_token *token, char c);

/* The length of PostgreSQL's identifiers, with the NUL. */
#define MB_SQL_NAME_SIZE 64

/*
 * Writes the name that a WORD or QUOTED token stands for, as the server reads it: folded or
 * unquoted, U&"" decoded with `escape` (the character of a UESCAPE clause, '\\' without one), cut
 * to 63 bytes at a character's border. False if the token is no identifier or its escapes are
 * broken.
 */
bool mb_token_name(const char *text, const mb_token *token, char escape,
                   char name[MB_SQL_NAME_SIZE]);

#endif
