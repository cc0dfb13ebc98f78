/*
 * position.c - from bytes to lines, columns and characters, in linear time.
 */
#include "engine/sql/position.h"

#include <string.h>

/* The bytes of a UTF-8 character but the first; broken text thus never counts too many characters.
 */
static bool is_continuation(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

void mb_position_init(mb_position *position, const char *text)
{
    *position = (mb_position){text, 0, 1, 1};
}

void mb_position_advance(mb_position *position, size_t offset)
{
    const char *text = position->text;
    size_t pos = position->offset;
    if (pos == 0 && offset >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        pos = 3;
    for (; pos < offset; pos++) {
        if (text[pos] == '\n') {
            position->line++;
            position->column = 1;
        } else if (!is_continuation(text[pos])) {
            position->column++;
        }
    }
    if (offset > position->offset)
        position->offset = offset;
}

void mb_position_locate(const char *text, size_t len, size_t offset, size_t *line, size_t *column)
{
    mb_position position;
    mb_position_init(&position, text);
    mb_position_advance(&position, offset < len ? offset : len);
    *line = position.line;
    *column = position.column;
}

size_t mb_position_of_character(const char *text, size_t len, size_t begin, size_t n)
{
    size_t pos = begin;
    while (n > 1 && pos < len) {
        pos++;
        while (pos < len && is_continuation(text[pos]))
            pos++;
        n--;
    }
    return pos < len ? pos : len;
}

size_t mb_position_clip(const char *text, size_t len, size_t max)
{
    if (len <= max)
        return len;
    while (max > 0 && is_continuation(text[max]))
        max--;
    return max;
}
