#include "kernels/linear.h"

#include "kernels/isa_ref.h"
#ifdef GAP_ISA
/* Six accumulators of 16 lanes are all that the registers hold. */
#define DOT_M 2
#define DOT_TILES(DO) DO(1, 4) DO(1, 1) DO(2, 2) DO(2, 1)
#define DOT_TABLE(DO) DO(1, 4), DO(2, 2)
#define PRODUCT_TILES(DO) DO(1, 4) DO(2, 2) DO(1, 1) DO(2, 1) DO(3, 1) DO(4, 1) DO(5, 1) DO(6, 1)
#define PRODUCT_WIDE(DO) DO(1, 4) DO(2, 2) DO(3, 1) DO(4, 1) DO(5, 1) DO(6, 1)
#define PRODUCT_ONE(DO) DO(1, 1) DO(2, 1) DO(3, 1) DO(4, 1) DO(5, 1) DO(6, 1)
#define PRODUCT_NBS 4, 2, 1, 1, 1, 1 /* the same from 3 on: several tiles have 3 rows or more */
#include "kernels/linear.inc"
#endif
