/* How readers wait: the ways to wait, and the descriptor of a handoff reader. Part of the tests' program. */
#define _GNU_SOURCE
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static void waits_in(shmd_reader *reader, enum shmd_wait wait, int64_t spin_ns, int64_t shown_ns) {
    enum shmd_wait way = (enum shmd_wait)7;
    int64_t ns = -1;
    GIVES(0, shmd_reader_set_wait(reader, wait, spin_ns));
    GIVES(0, shmd_reader_wait_get(reader, &way, &ns));
    CHECK(way == wait && ns == shown_ns);
}

/* Ways to wait, as set and as read back; a message arrives with each. */
void waits(shmd_endpoint *endpoint) {
    static const struct { enum shmd_wait wait; int64_t spin_ns, shown_ns; } ways[] = {
        {SHMD_WAIT_ADAPTIVE, 77, 0}, {SHMD_WAIT_SLEEP, 0, 0}, {SHMD_WAIT_SPIN, 1000, 1000}, {SHMD_WAIT_SPIN, 1000000000, 1000000000},
        {SHMD_WAIT_SPIN, 20000, 20000},
    };
    for (int follows = 0; follows < 2; follows++) {
        shmd_reader *reader = NULL;
        shmd_writer *writer = NULL;
        shmd_message message;
        enum shmd_wait way;
        char *stat = NULL;
        GIVES(0, (follows ? shmd_reader_follow : shmd_reader_attach)(endpoint, NULL, SHMD_OLDEST, &reader));
        GIVES(0, shmd_reader_wait_get(reader, &way, NULL));
        CHECK(way == SHMD_WAIT_ADAPTIVE);
        GIVES(SHMD_ERR_INVALID, shmd_reader_set_wait(reader, SHMD_WAIT_SPIN, 999));
        CHECK(strstr(shmd_error_message(), "999") != NULL);
        GIVES(SHMD_ERR_INVALID, shmd_reader_set_wait(reader, SHMD_WAIT_SPIN, 1000000001));
        GIVES(SHMD_ERR_INVALID, shmd_reader_set_wait(reader, SHMD_WAIT_SPIN, -1));
        GIVES(SHMD_ERR_INVALID, shmd_reader_set_wait(reader, (enum shmd_wait)3, 1000));
        GIVES(SHMD_ERR_INVALID, shmd_reader_wait_get(reader, NULL, NULL));
        GIVES(0, shmd_writer_attach(endpoint, NULL, &writer));
        for (size_t n = 0; n < sizeof ways / sizeof *ways; n++) {
            waits_in(reader, ways[n].wait, ways[n].spin_ns, ways[n].shown_ns);
            GIVES(0, shmd_writer_publish(writer, "x", 1, NULL));
            GIVES(0, shmd_reader_recv(reader, &message, SHMD_FOREVER));
            /* It is seen while a message is open, too. */
            GIVES(0, shmd_reader_wait_get(reader, &way, NULL));
            CHECK(way == ways[n].wait);
            GIVES(0, shmd_reader_finish(reader, &message));
        }
        GIVES(0, shmd_reader_set_status(reader, "counts \xc3\xa4pples"));
        GIVES(SHMD_NONE, shmd_reader_set_status(reader, "counts pears"));
        do {
            free(stat);
            GIVES(0, shmd_stat_json(endpoint, NULL, &stat));
        } while (strstr(stat, "\"status\":\"counts \xc3\xa4pples\"") == NULL);
        CHECK(strstr(stat, "\"wait\":\"spin=20us\"") != NULL);
        free(stat);
        shmd_reader_free(reader);
        shmd_writer_free(writer);
    }
}

/* A poll loop that prints messages as lines until the channel ends, and then how it ended. */
void polls(shmd_endpoint *endpoint, int follows) {
    shmd_reader *reader = NULL;
    shmd_message message;
    struct pollfd wait = {.fd = -1, .events = POLLIN};
    int result, fd = -1;
    GIVES(0, (follows ? shmd_reader_follow : shmd_reader_attach)(endpoint, NULL, SHMD_OLDEST, &reader));
    GIVES(0, shmd_reader_fd(reader, &wait.fd));
    puts("attached");
    do {
        char small[1];
        fflush(stdout);
        while ((result = shmd_reader_try_recv(reader, &message)) == SHMD_OK) {
            GIVES(SHMD_ERR_STATE, shmd_reader_arm(reader));
            printf("%.*s\n", (int)message.len, (const char *)message.data);
            fflush(stdout);
            GIVES(0, shmd_reader_finish(reader, &message));
        }
        if (result < 0) break;
        const char *notice = shmd_reader_notice(reader);
        if (notice != NULL) printf("notice: %s\n", notice);
        fflush(stdout);
        result = shmd_reader_arm(reader);
        if (result < 0) break;
        if (result == SHMD_OK) CHECK(poll(&wait, 1, 100000) == 1);
        result = shmd_reader_recv_copy(reader, small, sizeof small, NULL, 0);
        /* A message that does not fit stays the next one, and is not waited for. */
        if (result == SHMD_ERR_TOO_LARGE) result = shmd_reader_arm(reader);
        if (result == SHMD_ERR_TIMED_OUT) result = SHMD_NONE;
        CHECK(result == SHMD_NONE || result == SHMD_ERR_CLOSED);
        GIVES(0, shmd_reader_fd(reader, &fd));
        CHECK(fd == wait.fd);
    } while (result >= 0);
    printf("%s: %s\n", shmd_result_name(result), shmd_error_message());
    shmd_reader_free(reader);
}

/* A reader of a handoff channel has only one way to wait. */
void waits_for_a_handoff(shmd_endpoint *endpoint) {
    shmd_reader *reader = NULL;
    enum shmd_wait way;
    GIVES(0, shmd_reader_attach(endpoint, NULL, SHMD_NEW, &reader));
    GIVES(SHMD_ERR_UNSUPPORTED, shmd_reader_set_wait(reader, SHMD_WAIT_ADAPTIVE, 0));
    GIVES(SHMD_ERR_UNSUPPORTED, shmd_reader_set_status(reader, "busy"));
    GIVES(0, shmd_reader_wait_get(reader, &way, NULL));
    CHECK(way == SHMD_WAIT_SLEEP);
    shmd_reader_free(reader);
}
