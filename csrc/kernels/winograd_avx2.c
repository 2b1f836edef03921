#include "kernels/winograd.h"

#include "kernels/isa_avx2.h"
#ifdef GAP_ISA
#define WINO_M 6
#define WINO_M2 0
#define WINO_M4 0
#define GRAM_M 6
#define GRAM_NB 1
#include "kernels/winograd.inc"
#include "kernels/isa_end.h"
#endif
