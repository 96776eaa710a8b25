/* Publishes or receives numbered messages as fast as possible; see compare.rs, which does the same in Rust.
 *
 *     exchange write|read|both DIRECTORY SIZE BATCH MESSAGES
 *
 * The reader copies each message out, adds up the numbers and prints the nanoseconds between the first message and the last. With a batch of
 * more than 1, messages are published and received together. `both` is for counting instructions: one process publishes a batch and
 * receives it, again and again. */
#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shmd.h"

enum { MOST = 64, LARGEST = 1024 };

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void must(int result) {
    if (result != SHMD_OK) {
        fprintf(stderr, "exchange: %s: %s\n", shmd_result_name(result), shmd_error_message());
        exit(1);
    }
}

/* Copies the message, and returns its number. */
static inline uint64_t see(const shmd_message *message) {
    static uint64_t bytes[LARGEST / 8];
    memcpy(bytes, message->data, message->len);
    __asm__ volatile("" : : "r"(bytes) : "memory");
    return bytes[0];
}

static void writes(shmd_writer *writer, size_t size, size_t batch, uint64_t messages) {
    /* The messages of a batch, each in a place of its own, as a program has them that fills an array. */
    static uint64_t bytes[MOST][LARGEST / 8];
    shmd_bytes many[MOST];
    for (size_t k = 0; k < MOST; k++) {
        many[k].data = bytes[k];
        many[k].len = size;
    }
    if (batch == 1) {
        for (uint64_t n = 0; n < messages; n++) {
            bytes[0][0] = n;
            must(shmd_writer_publish(writer, bytes[0], size, NULL));
        }
        return;
    }
    for (uint64_t n = 0; n < messages; n += batch) {
        for (size_t k = 0; k < batch; k++) bytes[k][0] = n + k;
        must(shmd_writer_publish_many(writer, many, batch, NULL));
    }
}

static uint64_t reads(shmd_reader *reader, size_t batch, uint64_t messages, uint64_t *ns) {
    shmd_message message, many[MOST];
    uint64_t sum = 0, begun = 0, received = 0;
    if (batch == 1) {
        for (; received < messages; received++) {
            must(shmd_reader_recv(reader, &message, SHMD_FOREVER));
            sum += see(&message);
            must(shmd_reader_finish(reader, &message));
            if (received == 0) begun = now_ns();
        }
    } else {
        while (received < messages) {
            size_t count = 0;
            must(shmd_reader_recv_many(reader, many, batch, &count, SHMD_FOREVER));
            for (size_t k = 0; k < count; k++) sum += see(&many[k]);
            must(shmd_reader_finish_many(reader, many, count, NULL));
            if (received == 0) begun = now_ns();
            received += count;
        }
    }
    *ns = now_ns() - begun;
    return sum;
}

/* Publishes and receives in turn, and adds up the numbers. */
static uint64_t exchanges(shmd_writer *writer, shmd_reader *reader, size_t size, size_t batch, uint64_t messages) {
    static uint64_t bytes[MOST][LARGEST / 8];
    shmd_bytes many[MOST];
    shmd_message lent[MOST];
    uint64_t sum = 0;
    for (size_t k = 0; k < MOST; k++) {
        many[k].data = bytes[k];
        many[k].len = size;
    }
    for (uint64_t n = 0; n < messages; n += batch) {
        for (size_t k = 0; k < batch; k++) bytes[k][0] = n + k;
        if (batch == 1) {
            must(shmd_writer_publish(writer, bytes[0], size, NULL));
            must(shmd_reader_recv(reader, lent, SHMD_FOREVER));
            sum += see(lent);
            must(shmd_reader_finish(reader, lent));
            continue;
        }
        must(shmd_writer_publish_many(writer, many, batch, NULL));
        for (size_t received = 0; received < batch;) {
            size_t count = 0;
            must(shmd_reader_recv_many(reader, lent, batch, &count, SHMD_FOREVER));
            for (size_t k = 0; k < count; k++) sum += see(&lent[k]);
            must(shmd_reader_finish_many(reader, lent, count, NULL));
            received += count;
        }
    }
    return sum;
}

static void add_up(uint64_t sum, uint64_t messages) {
    if (sum != messages * (messages - 1) / 2) {
        fprintf(stderr, "exchange: the sum of all numbers is %llu\n", (unsigned long long)sum);
        exit(1);
    }
}

int main(int argc, char **argv) {
    shmd_endpoint *endpoint = NULL;
    if (argc != 6) return 2;
    const size_t size = strtoul(argv[3], NULL, 10), batch = strtoul(argv[4], NULL, 10);
    const uint64_t messages = strtoull(argv[5], NULL, 10);
    if (size > LARGEST || batch < 1 || batch > MOST) return 2;
    must(shmd_endpoint_find(argv[2], &endpoint));
    if (strcmp(argv[1], "write") == 0) {
        shmd_writer *writer = NULL;
        must(shmd_writer_attach(endpoint, NULL, &writer));
        writes(writer, size, batch, messages);
        shmd_writer_free(writer);
    } else if (strcmp(argv[1], "both") == 0) {
        shmd_writer *writer = NULL;
        shmd_reader *reader = NULL;
        must(shmd_reader_attach(endpoint, NULL, SHMD_NEW, &reader));
        must(shmd_writer_attach(endpoint, NULL, &writer));
        add_up(exchanges(writer, reader, size, batch, messages), messages);
        shmd_writer_free(writer);
        shmd_reader_free(reader);
    } else {
        shmd_reader *reader = NULL;
        uint64_t ns = 0;
        must(shmd_reader_attach(endpoint, NULL, SHMD_NEW, &reader));
        puts("ready");
        fflush(stdout);
        add_up(reads(reader, batch, messages, &ns), messages);
        printf("%llu\n", (unsigned long long)ns);
        shmd_reader_free(reader);
    }
    shmd_endpoint_free(endpoint);
    return 0;
}
