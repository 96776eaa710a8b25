/* The start of a handoff segment, as a C programmer writes it from the protocol's description. */
#include <pthread.h>
#include <semaphore.h>
#include <stddef.h>

struct channel {
    pthread_mutex_t lock;
    size_t capacity;
    size_t size;
    volatile int ready;
    char bytes[];
};
