/* The other side of the handoff protocol, as a C programmer writes it from the protocol's description: no robust mutex,
 * no bounded wait. "peer ROLE SEGMENT AVAIL DONE ARGUMENT..." plays one role for the tests. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "channel.h"

static int file;
static sem_t *avail, *done;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static struct channel *map(size_t length) {
    void *place = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (place == MAP_FAILED) fail("mmap");
    return place;
}

static size_t length_of_file(void) {
    struct stat found;
    if (fstat(file, &found) != 0) fail("fstat");
    return (size_t)found.st_size;
}

static void say(const char *text) {
    printf("%s\n", text);
    fflush(stdout);
}

static unsigned char pattern(size_t message, size_t at) { return (unsigned char)(message * 31 + at * 7 + at / 251); }

static struct channel *open_all(char **names) {
    file = shm_open(names[0], O_RDWR, 0);
    if (file < 0) fail("shm_open");
    struct channel *channel = map(length_of_file());
    avail = sem_open(names[1], 0);
    done = sem_open(names[2], 0);
    if (avail == SEM_FAILED || done == SEM_FAILED) fail("sem_open");
    return channel;
}

/* Reads COUNT messages; prints the length of each, and whether every byte is the pattern of message FIRST and so on. */
static int reader(char **names, size_t count, size_t first) {
    struct channel *channel = open_all(names);
    say("open");
    for (size_t i = first; i < first + count; i++) {
        sem_wait(avail);
        pthread_mutex_lock(&channel->lock);
        size_t now = length_of_file();
        if (now > channel->capacity) {
            munmap(channel, channel->capacity);
            channel = map(now);
        }
        if (channel->ready) {
            size_t at = 0;
            while (at < channel->size && (unsigned char)channel->bytes[at] == pattern(i, at)) at++;
            printf("%zu %s\n", channel->size, at == channel->size ? "good" : "bad");
            fflush(stdout);
            channel->ready = 0;
        } else {
            say("nothing");
        }
        pthread_mutex_unlock(&channel->lock);
        sem_post(done);
    }
    return 0;
}

/* Sends a message of each SIZE, doubling the segment as needed; waits for every acknowledgement. */
static int writer(char **names, int sizes, char **size) {
    size_t capacity = 4096;
    file = shm_open(names[0], O_CREAT | O_RDWR, 0666);
    if (file < 0 || ftruncate(file, (off_t)capacity) != 0) fail("segment");
    struct channel *channel = map(capacity);
    pthread_mutexattr_t shared;
    pthread_mutexattr_init(&shared);
    pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&channel->lock, &shared);
    channel->capacity = capacity;
    channel->size = 0;
    channel->ready = 0;
    sem_unlink(names[1]);
    sem_unlink(names[2]);
    avail = sem_open(names[1], O_CREAT | O_EXCL, 0666, 0);
    done = sem_open(names[2], O_CREAT | O_EXCL, 0666, 0);
    if (avail == SEM_FAILED || done == SEM_FAILED) fail("sem_open");
    say("open");
    for (int i = 0; i < sizes; i++) {
        size_t length = strtoul(size[i], NULL, 10);
        pthread_mutex_lock(&channel->lock);
        if (length > channel->capacity - sizeof *channel) {
            size_t larger = channel->capacity;
            while (larger < sizeof *channel + length) larger *= 2;
            munmap(channel, capacity);
            if (ftruncate(file, (off_t)larger) != 0) fail("ftruncate");
            channel = map(larger);
            channel->capacity = capacity = larger;
        }
        for (size_t at = 0; at < length; at++) channel->bytes[at] = (char)pattern((size_t)i, at);
        channel->size = length;
        channel->ready = 1;
        pthread_mutex_unlock(&channel->lock);
        sem_post(avail);
        sem_wait(done);
        say("acknowledged");
    }
    sem_unlink(names[1]);
    sem_unlink(names[2]);
    return 0;
}

/* A reader that goes as far as STEP, says so, and stays there until it is killed. */
static int stop_at(char **names, const char *step) {
    struct channel *channel = open_all(names);
    if (strcmp(step, "inside") != 0 && strcmp(step, "recovering") != 0) sem_wait(avail);
    if (strcmp(step, "claimed") != 0) {
        int code = pthread_mutex_lock(&channel->lock);
        if (strcmp(step, "recovering") == 0 && code != EOWNERDEAD) return 1;
        if (strcmp(step, "cleared") == 0) {
            channel->ready = 0;
            pthread_mutex_unlock(&channel->lock);
        }
    }
    say(step);
    for (;;) pause();
}

/* Locks a mutex whose holder died, repairs nothing, unlocks. */
static int careless(char **names) {
    struct channel *channel = open_all(names);
    pthread_mutex_lock(&channel->lock);
    pthread_mutex_unlock(&channel->lock);
    return 0;
}

static int post(char **names, const char *which, long times) {
    open_all(names);
    while (times-- > 0) sem_post(strcmp(which, "avail") == 0 ? avail : done);
    return 0;
}

/* Makes what a reader trusts a lie: a data_size that no file holds. */
static int lie(char **names) {
    struct channel *channel = open_all(names);
    channel->size = (size_t)-1;
    channel->ready = 1;
    sem_post(avail);
    return 0;
}

int main(int count, char **argument) {
    if (count < 5) return 2;
    /* Whatever its test does: it waits and stays no longer than this. */
    alarm(300);
    const char *role = argument[1];
    char **names = argument + 2, **rest = argument + 5;
    int left = count - 5;
    if (strcmp(role, "read") == 0 && left == 2) return reader(names, strtoul(rest[0], NULL, 10), strtoul(rest[1], NULL, 10));
    if (strcmp(role, "write") == 0) return writer(names, left, rest);
    if (strcmp(role, "stop") == 0 && left == 1) return stop_at(names, rest[0]);
    if (strcmp(role, "careless") == 0) return careless(names);
    if (strcmp(role, "post") == 0 && left == 2) return post(names, rest[0], strtol(rest[1], NULL, 10));
    if (strcmp(role, "lie") == 0) return lie(names);
    return 2;
}
