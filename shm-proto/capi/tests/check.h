/* For the programs of the tests: what has to hold, and which result a call has to give. */
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

#endif
