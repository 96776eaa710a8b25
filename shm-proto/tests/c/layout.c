/* Compiles only if the C compiler lays the protocol's objects out as the library does. The library's numbers come from the
 * compiler's command line: tests/handoff/layout.rs. */
#include "channel.h"

#define SAME(ours, theirs) _Static_assert((ours) == (theirs), #theirs " is not what the library says")

SAME(MUTEX, sizeof(pthread_mutex_t));
SAME(MUTEX_AT, offsetof(struct channel, lock));
SAME(CAPACITY_AT, offsetof(struct channel, capacity));
SAME(CAPACITY, sizeof(size_t));
SAME(SIZE_AT, offsetof(struct channel, size));
SAME(SIZE, sizeof(size_t));
SAME(READY_AT, offsetof(struct channel, ready));
SAME(READY, sizeof(int));
SAME(DATA_AT, offsetof(struct channel, bytes));
SAME(HEADER, sizeof(struct channel));
SAME(SEMAPHORE, sizeof(sem_t));
/* A place that is aligned for the library's atomics is aligned for these. */
_Static_assert(_Alignof(pthread_mutex_t) <= 8 && _Alignof(sem_t) <= 8, "an object of the C library wants more than 8 bytes");
