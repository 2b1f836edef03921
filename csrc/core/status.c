#include "core/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MESSAGE_BYTES 1024

static GAP_THREAD_LOCAL char message[MESSAGE_BYTES];

gap_status gap_fail(gap_status code, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    return code;
}

gap_status gap_fail_in(gap_status code, const char *fmt, ...) {
    char place[256], old[MESSAGE_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(place, sizeof place, fmt, args);
    va_end(args);
    memcpy(old, message, sizeof old);
    /* A long chain of places is cut at the end, never overrun: the innermost cause may go, not memory. */
    int used = snprintf(message, sizeof message, "in %s: ", place);
    if (used > 0 && (size_t)used < sizeof message)
        snprintf(message + used, sizeof message - (size_t)used, "%.*s", (int)(sizeof message - (size_t)used - 1), old);
    return code;
}

const char *gap_error_message(void) { return message; }
