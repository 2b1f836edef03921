#include "kernels/conv.h"
#include "kernels/isa_ref.h"

#ifdef GAP_ISA
#define ROW_M 2
#define ROW_M2 0
#define ROW_M4 0
#define COL_M 2
#define COL_NB 1
#define GROUP_M 2
#define GROUP_K 1
#include "kernels/conv.inc"
#endif
