/* What the files of the tests' program share: what has to hold, which result a call has to give, and the parts of the program. */
#ifndef SHMD_TESTS_CHECK_H
#define SHMD_TESTS_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#include "shmd.h"

#define CHECK(condition)                                                                                                           \
    do {                                                                                                                           \
        if (!(condition)) {                                                                                                        \
            fprintf(stderr, "%s:%d: %s does not hold; last error: %s\n", __FILE__, __LINE__, #condition, shmd_error_message());    \
            exit(1);                                                                                                               \
        }                                                                                                                          \
    } while (0)
#define GIVES(result, call)                                                                                                        \
    do {                                                                                                                           \
        const int given = (call);                                                                                                  \
        if (given != (result)) {                                                                                                   \
            fprintf(stderr, "%s:%d: %s gives %s, not %s: %s\n", __FILE__, __LINE__, #call, shmd_result_name(given),                \
                    shmd_result_name(result), shmd_error_message());                                                               \
            exit(1);                                                                                                               \
        }                                                                                                                          \
    } while (0)

/* rules.c */
void misuses(shmd_endpoint *endpoint);
void forks(shmd_endpoint *endpoint);
void asks(shmd_endpoint *endpoint);
void is_interrupted(shmd_endpoint *endpoint);
void has_times(shmd_endpoint *endpoint, int wanted);
void has_content(shmd_endpoint *endpoint);
/* handoff.c */
void leaves_a_message(shmd_endpoint *endpoint, const char *way, int follows);
/* waiting.c */
void waits(shmd_endpoint *endpoint);
void waits_for_a_handoff(shmd_endpoint *endpoint);
void polls(shmd_endpoint *endpoint, int follows);

#endif
