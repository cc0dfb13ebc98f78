/*
 * position.h - from bytes to what people and servers count: lines, columns, characters.
 *
 * Lines end at a line feed (a carriage return before it is the last character of its line). Columns
 * and the server's positions count UTF-8 characters from 1; a byte order mark at the start of the
 * text has bytes but no column. Byte offsets are 0-based. Nothing is owned or allocated.
 */
#ifndef MB_SQL_POSITION_H
#define MB_SQL_POSITION_H

#include "engine/base/base.h"

/* A place that only moves forward, so that many positions of one text cost one pass. */
typedef struct mb_position {
    const char *text;
    size_t offset;
    size_t line;
    size_t column;
} mb_position;

/* Starts at byte 0, line 1, column 1. */
void mb_position_init(mb_position *position, const char *text);

/* Moves to `offset` (not before the place it is at, not behind the text's end). */
void mb_position_advance(mb_position *position, size_t offset);

/* Line and column of one byte; offsets behind the end count as the end. */
void mb_position_locate(const char *text, size_t len, size_t offset, size_t *line, size_t *column);

/*
 * The byte at which the n-th character (1-based) counted from byte `begin` starts: turns the
 * position in a server's error into an offset. `len` when the text has fewer; n = 0 counts as 1.
 */
size_t mb_position_of_character(const char *text, size_t len, size_t begin, size_t n);

/* The greatest length up to `max` at which text[0, len) may be cut without cutting a character. */
size_t mb_position_clip(const char *text, size_t len, size_t max);

#endif
