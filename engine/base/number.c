/*
 * number.c - see number.h.
 */
#include "engine/base/number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void mb_float_text(char text[MB_FLOAT_TEXT], double n)
{
    if (!isfinite(n)) { /* printf has a sign for NaN, too */
        snprintf(text, MB_FLOAT_TEXT, "%s", isnan(n) ? "NaN" : n > 0 ? "Infinity" : "-Infinity");
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, MB_FLOAT_TEXT, "%.*g", digits, n);
        if (strtod(text, NULL) == n)
            return;
    }
}
