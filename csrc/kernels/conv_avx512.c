#include "kernels/conv.h"
#include "kernels/isa_avx512.h"

#ifdef GAP_ISA
#define ROW_M 14
#define ROW_M2 14
#define ROW_M4 6
#define COL_M 14
#define COL_M2 8
#define COL_NB 2
#define GROUP_M 14
#define GROUP_K 8
#include "kernels/conv.inc"
#include "kernels/isa_end.h"
#endif
