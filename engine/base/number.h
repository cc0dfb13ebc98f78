/*
 * number.h - floating-point numbers as text.
 */
#ifndef MB_BASE_NUMBER_H
#define MB_BASE_NUMBER_H

#define MB_FLOAT_TEXT 32

/* Writes the shortest of the texts of 15 to 17 digits that reads as the same number; NaN, Infinity and
 * -Infinity as the server names them. */
void mb_float_text(char text[MB_FLOAT_TEXT], double n);

#endif
