#include "kernels/winograd.h"

#include "kernels/isa_avx512.h"
#ifdef GAP_ISA
#define WINO_M 14
#define WINO_M2 14
#define WINO_M4 6
#define GRAM_M 8
#define GRAM_NB 2
#include "kernels/winograd.inc"
#include "kernels/isa_end.h"
#endif
