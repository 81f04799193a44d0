/* MKL asks this function whether it runs on Intel's processors and takes a slow path if not.
   Loaded first (LD_PRELOAD), this one answers yes on AMD's too. */
int mkl_serv_intel_cpu_true(void) { return 1; }
