/* LD_PRELOAD: every fsync and fdatasync takes SLOW_FSYNC_MS longer. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static void dawdle(void) {
    const char *text = getenv("SLOW_FSYNC_MS");
    long ms = text ? atol(text) : 0;
    struct timespec wait = {ms / 1000, (ms % 1000) * 1000000L};
    nanosleep(&wait, NULL);
}
int fsync(int fd) {
    dawdle();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
int fdatasync(int fd) {
    dawdle();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
