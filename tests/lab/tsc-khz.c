// Prints how fast this machine's time-stamp counter counts, in kHz. See tests/lab/README.md, "The lab's clock".

#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

struct moment {
    uint64_t ticks;
    uint64_t ns;
};

// The counter and the clock at the same time. Of many tries the one in which the two are closest: in the others, this
// process had to wait in between, for others or for the hypervisor.
static struct moment now(void)
{
    struct moment best = {0, 0};
    uint64_t closest = UINT64_MAX;
    for (int i = 0; i < 200; i++) {
        struct timespec time;
        uint64_t before = __rdtsc();
        clock_gettime(CLOCK_MONOTONIC_RAW, &time);
        uint64_t distance = __rdtsc() - before;
        if (distance < closest) {
            closest = distance;
            best.ticks = before + distance / 2;
            best.ns = (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
        }
    }
    return best;
}

int main(void)
{
    struct timespec pause = {0, 50000000};
    struct moment first = now();
    nanosleep(&pause, NULL);
    struct moment last = now();
    printf("%llu\n", (unsigned long long)((last.ticks - first.ticks) * 1000000 / (last.ns - first.ns)));
    return 0;
}
