#include "kernels/conv.h"
#include "kernels/isa_neon.h"

#ifdef GAP_ISA
#define ROW_M 6
#define ROW_M2 0
#define ROW_M4 0
#define COL_M 6
#define COL_NB 1
#define GROUP_M 6
#define GROUP_K 2
#include "kernels/conv.inc"
#endif
