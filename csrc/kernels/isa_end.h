/* isa_end.h — ends what isa_avx2.h and isa_avx512.h begin; the last line of every file that includes one of them, and so
 * without a guard. gcc's target pragma ends with the file, clang's must be popped. */
#if defined(__clang__) && defined(__x86_64__)
#pragma clang attribute pop
#endif
