/* buffer.h — counted memory, so that a NumPy view and the core can own the same bytes.
 *
 * Owned memory and borrowed memory (a NumPy array's) differ only in `drop`. Counts are atomic.
 */
#ifndef GAP_CORE_BUFFER_H
#define GAP_CORE_BUFFER_H

#include <stddef.h>

#include "core/status.h"

typedef struct gap_buf gap_buf;

/* Gives a zeroed buffer with one count. */
GAP_MUST_USE gap_status gap_buf_new(gap_buf **out, size_t bytes);
/* Gives a buffer over `mem`; at the last unref drop(cookie) is called once. On failure nothing is taken. */
GAP_MUST_USE gap_status gap_buf_wrap(gap_buf **out, void *mem, size_t bytes, void (*drop)(void *cookie), void *cookie);
gap_buf *gap_buf_ref(gap_buf *b);   /* adds a count; gives b */
void gap_buf_unref(gap_buf **b);    /* drops a count and sets *b to NULL; *b may be NULL */
void *gap_buf_data(const gap_buf *b);
size_t gap_buf_bytes(const gap_buf *b);

#endif
