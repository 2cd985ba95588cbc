/* The lower bound for the cost of measuring many mounts: one loop that calls statvfs(3) for each path of standard input.
 * Prints the duration of the loop in nanoseconds, once per round. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

#define PATHS_MAX 10000

int main(int argc, char **argv) {
    static char *paths[PATHS_MAX];
    char line[4096];
    int count = 0, rounds = argc > 1 ? atoi(argv[1]) : 1;
    while (count < PATHS_MAX && fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if ((paths[count++] = strdup(line)) == NULL) return 1;
    }
    for (int round = 0; round < rounds; round++) {
        struct timespec began, ended;
        clock_gettime(CLOCK_MONOTONIC, &began);
        for (int i = 0; i < count; i++) {
            struct statvfs counts;
            if (statvfs(paths[i], &counts) != 0) {
                fprintf(stderr, "%s: %s\n", paths[i], strerror(errno));
                return 1;
            }
        }
        clock_gettime(CLOCK_MONOTONIC, &ended);
        printf("%lld\n", (ended.tv_sec - began.tv_sec) * 1000000000LL + ended.tv_nsec - began.tv_nsec);
    }
    return 0;
}
