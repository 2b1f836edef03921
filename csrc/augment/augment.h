/* augment.h — an augmentation's table row: sample parameters from the counter-based generator, then apply them.
 *
 * Images are uint8 (H, W, C), C 1 or 3, one thread per image. The pixels an op reads and writes are its own buffers'.
 */
#ifndef GAP_AUGMENT_AUGMENT_H
#define GAP_AUGMENT_AUGMENT_H

#include "core/memory.h"
#include "core/param.h"
#include "core/rng.h"
#include "kernels/kernels.h"

#define GAP_AUG_PARAM_MAX 16

typedef struct {
    uint8_t *data;       /* (h, w, c), rows without gaps */
    int64_t h, w, c;
    size_t capacity;     /* bytes that `data` can hold */
} gap_image;

/* Makes room for (h, w, c) and sets the size; contents undefined. */
GAP_MUST_USE gap_status gap_image_reserve(gap_image *im, int64_t h, int64_t w, int64_t c);
void gap_image_free(gap_image *im);

/* What an op drew for one image: enough to do the same again, and to show it. */
typedef struct { double v[GAP_AUG_PARAM_MAX]; } gap_aug_params;

/* Scratch of one thread, kept between images, and the kernels to use. */
typedef struct { void *mem; size_t bytes; const gap_kernels *kernels; } gap_scratch;
/* Makes room for `bytes`; contents undefined, what was there is lost. */
GAP_MUST_USE gap_status gap_scratch_reserve(gap_scratch *s, size_t bytes);

typedef struct {
    const char *name, *doc;
    const gap_param *params;
    int n_params;
    bool random;             /* draws numbers: refused in an evaluation pipeline */
    bool last;               /* must be the pipeline's last op (Normalize) */
    const char *const *drawn; /* names of what `sample` draws, gap_aug_params.v in order, NULL-terminated; NULL: nothing */
    /* What ranges alone cannot say about a config (a lower bound below an upper one). NULL: nothing more to check. */
    gap_status (*check)(const gap_value *cfg);
    /* Output size for an input (h, w, c), exactly what `apply` will give, or why it cannot: *fixed says whether it is the same for every input. NULL: unchanged. */
    gap_status (*shape)(const gap_value *cfg, int64_t h, int64_t w, int64_t c, int64_t *oh, int64_t *ow, bool *fixed);
    /* Draws for an image of this size. NULL for ops without randomness. */
    gap_status (*sample)(const gap_value *cfg, gap_draws *d, int64_t h, int64_t w, gap_aug_params *out);
    /* in -> out; *same = true when nothing changed and `out` was not written. */
    gap_status (*apply)(const gap_value *cfg, const gap_aug_params *p, const gap_image *in, gap_image *out, gap_scratch *s, bool *same);
} gap_augment_def;

extern const gap_augment_def *const gap_augment_table[];
extern const int gap_augment_count;
const gap_augment_def *gap_augment_find(const char *name);

#endif
