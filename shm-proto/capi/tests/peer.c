/* A program of the tests: reader, writer and other things, in C. `peer COMMAND DIRECTORY ...`; see main(). */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static shmd_endpoint *endpoint;

static void say(const char *text) {
    puts(text);
    fflush(stdout);
}

/* Message number n has this many bytes, and this is byte k of it. The first 8 bytes are the number. */
static size_t length_of(uint64_t n, size_t most) { return 8 + (size_t)(n * 7919 % (most - 7)); }
static unsigned char byte_of(uint64_t n, size_t k) { return (unsigned char)(n * 31 + k * 7); }

static void fill(unsigned char *to, uint64_t n, size_t len) {
    memcpy(to, &n, 8);
    for (size_t k = 8; k < len; k++) to[k] = byte_of(n, k);
}

static void check(const unsigned char *from, size_t len, uint64_t n, size_t most) {
    uint64_t number = 0;
    CHECK(len == length_of(n, most));
    memcpy(&number, from, 8);
    CHECK(number == n);
    for (size_t k = 8; k < len; k++) CHECK(from[k] == byte_of(n, k));
}

/* send COUNT MOST WAY: publishes numbered messages of up to MOST bytes. */
static void sends(uint64_t count, size_t most, const char *way) {
    shmd_writer *writer = NULL;
    unsigned char *bytes = malloc(most * 16);
    CHECK(bytes != NULL);
    GIVES(0, shmd_writer_attach(endpoint, NULL, &writer));
    say("attached");
    for (uint64_t n = 0; n < count;) {
        const size_t len = length_of(n, most);
        uint64_t seq = 0;
        if (strcmp(way, "copy") == 0) {
            fill(bytes, n, len);
            GIVES(0, shmd_writer_publish(writer, bytes, len, &seq));
            CHECK(seq == n++);
        } else if (strcmp(way, "acked") == 0) {
            fill(bytes, n, len);
            GIVES(0, shmd_writer_publish_acked(writer, bytes, len, SHMD_SECONDS(100), &seq));
            CHECK(seq == n++);
        } else if (strcmp(way, "place") == 0) {
            shmd_slot slot;
            GIVES(0, shmd_writer_reserve(writer, most, &slot));
            CHECK(slot.len == most && slot.data != NULL);
            fill(slot.data, n, len);
            GIVES(0, shmd_writer_commit(writer, &slot, len, &seq));
            CHECK(slot.data == NULL && seq == n++);
        } else if (strcmp(way, "batch") == 0) {
            GIVES(0, shmd_writer_batch_begin(writer));
            for (int k = 0; k < 16 && n < count; k++, n++) {
                fill(bytes, n, length_of(n, most));
                GIVES(0, shmd_writer_batch_push(writer, bytes, length_of(n, most), &seq));
                CHECK(seq == n);
            }
            GIVES(0, shmd_writer_batch_commit(writer));
        } else {
            shmd_bytes many[16];
            size_t number = 0, published = 0;
            for (; number < 16 && n < count; number++, n++) {
                fill(bytes + number * most, n, length_of(n, most));
                many[number].data = bytes + number * most;
                many[number].len = length_of(n, most);
            }
            GIVES(0, shmd_writer_publish_many(writer, many, number, &published));
            CHECK(published == number);
        }
    }
    shmd_writer_free(writer);
    free(bytes);
    say("sent");
}

/* receive COUNT MOST WAY: receives them, in order and without a gap. */
static void receives(uint64_t count, size_t most, const char *way) {
    shmd_reader *reader = NULL;
    unsigned char *bytes = malloc(most);
    CHECK(bytes != NULL);
    if (strcmp(way, "follow") == 0) GIVES(0, shmd_reader_follow(endpoint, NULL, SHMD_OLDEST, &reader));
    else GIVES(0, shmd_reader_attach(endpoint, NULL, SHMD_OLDEST, &reader));
    say("attached");
    for (uint64_t n = 0; n < count;) {
        shmd_message message;
        if (strcmp(way, "copy") == 0) {
            GIVES(0, shmd_reader_recv_copy(reader, bytes, most, &message, SHMD_SECONDS(100)));
            CHECK(message.seq == n && message.lost_before == 0 && message.data == NULL);
            check(bytes, message.len, n++, most);
        } else if (strcmp(way, "poll") == 0) {
            struct pollfd wait = {.events = POLLIN};
            int result;
            GIVES(0, shmd_reader_fd(reader, &wait.fd));
            result = shmd_reader_arm(reader);
            CHECK(result == SHMD_OK || result == SHMD_NONE);
            if (result == SHMD_OK) CHECK(poll(&wait, 1, 100000) == 1);
            while ((result = shmd_reader_try_recv(reader, &message)) == SHMD_OK) {
                check(message.data, message.len, n++, most);
                GIVES(0, shmd_reader_finish(reader, &message));
            }
            CHECK(result == SHMD_NONE);
        } else if (strcmp(way, "many") == 0) {
            shmd_message many[40];
            size_t number = 0, valid = 0;
            GIVES(0, shmd_reader_recv_many(reader, many, 40, &number, SHMD_SECONDS(100)));
            CHECK(number >= 1 && number <= 40);
            for (size_t k = 0; k < number; k++, n++) {
                CHECK(many[k].seq == n && many[k].lost_before == 0);
                check(many[k].data, many[k].len, n, most);
            }
            GIVES(0, shmd_reader_finish_many(reader, many, number, &valid));
            CHECK(valid == number && many[number - 1].data == NULL);
        } else {
            GIVES(0, shmd_reader_recv(reader, &message, SHMD_SECONDS(100)));
            CHECK(message.seq == n && message.lost_before == 0);
            check(message.data, message.len, n++, most);
            GIVES(0, shmd_reader_finish(reader, &message));
        }
    }
    CHECK(strcmp(way, "follow") == 0 || shmd_reader_received(reader) == count);
    CHECK(shmd_reader_lost(reader) == 0);
    shmd_reader_free(reader);
    free(bytes);
    say("received");
}

/* lines: publishes the lines of standard input. */
static void publishes_lines(void) {
    shmd_writer *writer = NULL;
    char *line = NULL;
    size_t size = 0;
    ssize_t len;
    GIVES(0, shmd_writer_attach(endpoint, NULL, &writer));
    while ((len = getline(&line, &size, stdin)) > 0) GIVES(0, shmd_writer_publish(writer, line, (size_t)len - 1, NULL));
    free(line);
    shmd_writer_free(writer);
}

/* print: prints messages as lines, until the channel ends, and then how it ended. */
static void prints_messages(int follows) {
    shmd_reader *reader = NULL;
    shmd_message message;
    int result;
    GIVES(0, (follows ? shmd_reader_follow : shmd_reader_attach)(endpoint, NULL, SHMD_OLDEST, &reader));
    say("attached");
    while ((result = shmd_reader_recv(reader, &message, SHMD_MILLISECONDS(100))) == 0 || result == SHMD_ERR_TIMED_OUT) {
        const char *notice = shmd_reader_notice(reader);
        if (notice != NULL) printf("notice: %s\n", notice);
        if (result == 0) {
            printf("%.*s\n", (int)message.len, (const char *)message.data);
            result = shmd_reader_finish(reader, &message);
            if (result != 0) break;
        }
        fflush(stdout);
    }
    printf("%s: %s\n", shmd_result_name(result), shmd_error_message());
    shmd_reader_free(reader);
}

/* hold WHAT: keeps the first message (or 16) open until a line comes on standard input, then says what finishing gives. */
static void holds(int many, int follows) {
    shmd_reader *reader = NULL;
    shmd_message messages[16];
    size_t count = 1, valid = 77;
    int result;
    GIVES(0, (follows ? shmd_reader_follow : shmd_reader_attach)(endpoint, NULL, SHMD_OLDEST, &reader));
    say("attached");
    GIVES(0, shmd_reader_recv_many(reader, messages, many ? 16 : 1, &count, SHMD_SECONDS(100)));
    printf("holds %zu\n", count);
    fflush(stdout);
    CHECK(getchar() == '\n');
    CHECK(messages[0].len > 0);
    result = shmd_reader_finish_many(reader, messages, count, &valid);
    printf("%s %zu: %s\n", shmd_result_name(result), valid, result == 0 ? "" : shmd_error_message());
    fflush(stdout);
    CHECK(getchar() == '\n');
    /* An eviction shows in this call or in the next one. */
    result = shmd_reader_recv(reader, messages, SHMD_SECONDS(100));
    if (result == 0) {
        printf("next %llu lost %llu\n", (unsigned long long)messages[0].seq, (unsigned long long)messages[0].lost_before);
        result = shmd_reader_finish(reader, messages);
    }
    printf("then %s\nlost %llu in all\n", shmd_result_name(result), (unsigned long long)shmd_reader_lost(reader));
    shmd_reader_free(reader);
}

int main(int argc, char **argv) {
    CHECK(argc >= 3);
    const char *command = argv[1];
    GIVES(0, shmd_endpoint_find(argv[2], &endpoint));
    if (strcmp(command, "send") == 0 && argc == 6) sends(strtoull(argv[3], NULL, 10), strtoul(argv[4], NULL, 10), argv[5]);
    else if (strcmp(command, "receive") == 0 && argc == 6) receives(strtoull(argv[3], NULL, 10), strtoul(argv[4], NULL, 10), argv[5]);
    else if (strcmp(command, "lines") == 0) publishes_lines();
    else if (strcmp(command, "print") == 0) prints_messages(argc == 4);
    else if (strcmp(command, "hold") == 0) holds(strcmp(argv[3], "many") == 0, argc == 5);
    else if (strcmp(command, "leave") == 0) leaves_a_message(endpoint, argv[3], argc == 5);
    else if (strcmp(command, "misuse") == 0) misuses(endpoint);
    else if (strcmp(command, "fork") == 0) forks(endpoint);
    else if (strcmp(command, "ask") == 0) asks(endpoint);
    else if (strcmp(command, "content") == 0) has_content(endpoint);
    else if (strcmp(command, "interrupt") == 0) is_interrupted(endpoint);
    else if (strcmp(command, "times") == 0) has_times(endpoint, 1);
    else if (strcmp(command, "no-times") == 0) has_times(endpoint, 0);
    else if (strcmp(command, "waits") == 0) waits(endpoint);
    else if (strcmp(command, "waits-handoff") == 0) waits_for_a_handoff(endpoint);
    else if (strcmp(command, "poll") == 0) polls(endpoint, argc == 4);
    else CHECK(!"a known command");
    shmd_endpoint_free(endpoint);
    return 0;
}
