#include "kernels/act.h"
#include "kernels/stream.h"

#include "kernels/isa_avx2.h"
#ifdef GAP_ISA
#include "kernels/stream.inc"
#include "kernels/isa_end.h"
#endif
