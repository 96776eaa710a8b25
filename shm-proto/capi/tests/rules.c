/* What the header promises about misuse, fork(), interruption and the daemon's answers. Part of the tests' program. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

static void misuses_nothing(shmd_endpoint *endpoint) {
    shmd_reader *reader = NULL;
    shmd_writer *writer = NULL;
    shmd_message message;
    shmd_slot slot;
    shmd_error error;
    size_t count = 0;
    enum shmd_wait wait;
    char small[4] = {0}, *text = NULL;
    int fd = 0;

    CHECK(strcmp(shmd_version(), "0.1.0") == 0);
    CHECK(strcmp(shmd_result_name(SHMD_ERR_TIMED_OUT), "SHMD_ERR_TIMED_OUT") == 0);
    CHECK(strcmp(shmd_result_name(12345), "unknown result") == 0);
    CHECK(strcmp(shmd_error_message(), "") == 0);
    GIVES(0, shmd_error_get(&error, sizeof error));
    CHECK(error.code == 0);

    GIVES(SHMD_ERR_INVALID, shmd_endpoint_find(NULL, NULL));
    GIVES(SHMD_ERR_INVALID, shmd_endpoint_set_patience(NULL, 1));
    GIVES(SHMD_ERR_INVALID, shmd_endpoint_set_expected(NULL, "json", NULL));
    GIVES(SHMD_ERR_INVALID, shmd_endpoint_set_expected(endpoint, "js on", NULL));
    GIVES(SHMD_ERR_INVALID, shmd_endpoint_set_expected(endpoint, NULL, "schema"));
    CHECK(shmd_endpoint_socket(NULL) == NULL && strstr(shmd_endpoint_socket(endpoint), "shmd.sock") != NULL);
    shmd_endpoint_free(NULL);
    shmd_reader_free(NULL);
    shmd_writer_free(NULL);
    shmd_writer_interrupt(NULL, 1);

    GIVES(SHMD_ERR_INVALID, shmd_reader_attach(endpoint, NULL, SHMD_NEW, NULL));
    GIVES(SHMD_ERR_INVALID, shmd_reader_attach(endpoint, NULL, (enum shmd_start)7, &reader));
    GIVES(SHMD_ERR_INVALID, shmd_reader_attach(endpoint, "\xff", SHMD_NEW, &reader));
    GIVES(SHMD_ERR_BAD_NAME, shmd_reader_attach(endpoint, "a/b", SHMD_NEW, &reader));
    GIVES(SHMD_ERR_BAD_NAME, shmd_resize(endpoint, "a/b", 1, NULL));
    GIVES(SHMD_ERR_NO_SUCH_CHANNEL, shmd_reader_attach(endpoint, "nobody", SHMD_NEW, &reader));
    CHECK(strstr(shmd_error_message(), "nobody") != NULL);
    GIVES(0, shmd_error_get(&error, sizeof error));
    CHECK(error.code == SHMD_ERR_NO_SUCH_CHANNEL && error.system_errno == 0);
    GIVES(SHMD_ERR_INVALID, shmd_error_get(NULL, sizeof error));
    CHECK(reader == NULL);

    GIVES(SHMD_ERR_INVALID, shmd_reader_recv(NULL, &message, 0));
    GIVES(SHMD_ERR_INVALID, shmd_reader_try_recv(NULL, &message));
    GIVES(SHMD_ERR_INVALID, shmd_reader_finish(NULL, &message));
    GIVES(SHMD_ERR_INVALID, shmd_reader_give_back(NULL, &message));
    GIVES(SHMD_ERR_INVALID, shmd_reader_recv_many(NULL, &message, 1, &count, 0));
    GIVES(SHMD_ERR_INVALID, shmd_reader_finish_many(NULL, &message, 1, NULL));
    GIVES(SHMD_ERR_INVALID, shmd_reader_recv_copy(NULL, small, 4, &message, 0));
    GIVES(SHMD_ERR_INVALID, shmd_reader_fd(NULL, &fd));
    GIVES(SHMD_ERR_INVALID, shmd_reader_arm(NULL));
    GIVES(SHMD_ERR_INVALID, shmd_reader_set_wait(NULL, SHMD_WAIT_SLEEP, 0));
    GIVES(SHMD_ERR_INVALID, shmd_reader_set_status(NULL, "busy"));
    GIVES(SHMD_ERR_INVALID, shmd_reader_wait_get(NULL, &wait, NULL));
    GIVES(SHMD_ERR_INVALID, shmd_reader_facts(NULL, NULL, 0));
    GIVES(SHMD_ERR_INVALID, shmd_reader_content(NULL, NULL, 0));
    CHECK(shmd_reader_seq(NULL) == 0 && shmd_reader_received(NULL) == 0 && shmd_reader_lost(NULL) == 0);
    CHECK(shmd_reader_is_attached(NULL) == 0 && shmd_reader_notice(NULL) == NULL);
    GIVES(SHMD_ERR_INVALID, shmd_writer_attach(endpoint, NULL, NULL));
    GIVES(SHMD_ERR_INVALID, shmd_writer_publish(writer, "x", 1, NULL));
    GIVES(SHMD_ERR_INVALID, shmd_writer_publish_many(NULL, NULL, 0, NULL));
    GIVES(SHMD_ERR_INVALID, shmd_writer_reserve(NULL, 1, &slot));
    GIVES(SHMD_ERR_INVALID, shmd_writer_maintain(NULL));
    GIVES(SHMD_ERR_INVALID, shmd_writer_content(NULL, NULL, 0));
    GIVES(SHMD_ERR_INVALID, shmd_channels(endpoint, NULL, NULL));
    GIVES(SHMD_ERR_INVALID, shmd_stat_json(endpoint, NULL, NULL));
    GIVES(SHMD_ERR_INVALID, shmd_schema_get(endpoint, NULL, NULL, &count));
    GIVES(SHMD_ERR_INVALID, shmd_schema_get(endpoint, NULL, &text, NULL));
}

static void misuses_readers(shmd_endpoint *endpoint, shmd_writer *writer) {
    shmd_reader *reader = NULL, *other = NULL;
    shmd_message message, stale, theirs, many[8];
    shmd_facts facts;
    shmd_error error;
    size_t count = 0, valid = 0;
    char small[4] = {0}, large[64];

    GIVES(0, shmd_reader_attach(endpoint, NULL, SHMD_NEW, &reader));
    GIVES(0, shmd_reader_attach(endpoint, NULL, SHMD_NEW, &other));
    GIVES(SHMD_NONE, shmd_reader_try_recv(reader, &message));
    GIVES(SHMD_ERR_TIMED_OUT, shmd_reader_recv(reader, &message, 0));
    GIVES(SHMD_ERR_TIMED_OUT, shmd_reader_recv(reader, &message, SHMD_MILLISECONDS(2)));
    GIVES(SHMD_ERR_TIMED_OUT, shmd_reader_recv_many(reader, many, 8, &count, SHMD_MILLISECONDS(2)));
    GIVES(SHMD_ERR_TIMED_OUT, shmd_reader_recv_copy(reader, small, 4, &message, 0));
    GIVES(SHMD_ERR_INVALID, shmd_reader_recv(reader, NULL, 0));
    GIVES(SHMD_ERR_INVALID, shmd_reader_recv_many(reader, NULL, 8, &count, 0));
    GIVES(SHMD_ERR_INVALID, shmd_reader_recv_many(reader, many, 0, &count, 0));
    GIVES(SHMD_ERR_INVALID, shmd_reader_recv_many(reader, many, 8, NULL, 0));
    memset(&message, 0, sizeof message);
    GIVES(SHMD_ERR_STATE, shmd_reader_finish(reader, &message));
    for (int n = 0; n < 20; n++) GIVES(0, shmd_writer_publish(writer, "twelve bytes", 12, NULL));

    GIVES(0, shmd_reader_recv(reader, &message, SHMD_FOREVER));
    GIVES(0, shmd_reader_recv(other, &theirs, SHMD_FOREVER));
    CHECK(message.len == 12 && memcmp(message.data, "twelve bytes", 12) == 0 && (uintptr_t)message.data % 16 == 0);
    stale = message;
    GIVES(SHMD_ERR_STATE, shmd_reader_recv(reader, &many[0], 0));
    GIVES(SHMD_ERR_STATE, shmd_reader_try_recv(reader, &many[0]));
    GIVES(SHMD_ERR_STATE, shmd_reader_recv_many(reader, many, 8, &count, 0));
    GIVES(SHMD_ERR_STATE, shmd_reader_recv_copy(reader, large, 64, NULL, 0));
    GIVES(SHMD_ERR_STATE, shmd_reader_arm(reader));
    GIVES(SHMD_ERR_STATE, shmd_reader_set_wait(reader, SHMD_WAIT_SLEEP, 0));
    GIVES(SHMD_ERR_STATE, shmd_reader_set_status(reader, "busy"));
    GIVES(SHMD_ERR_STATE, shmd_reader_finish(reader, &theirs));
    GIVES(SHMD_ERR_STATE, shmd_reader_finish_many(reader, &message, 2, NULL));
    GIVES(SHMD_ERR_STATE, shmd_reader_give_back(reader, &theirs));
    GIVES(SHMD_ERR_UNSUPPORTED, shmd_reader_give_back(reader, &message));
    CHECK(shmd_reader_seq(reader) == message.seq && shmd_reader_lost(reader) == 0 && shmd_reader_skipped_before(reader) == 0);
    GIVES(0, shmd_reader_finish(reader, &message));
    CHECK(message.data == NULL);
    GIVES(SHMD_ERR_STATE, shmd_reader_finish(reader, &message));
    GIVES(SHMD_ERR_STATE, shmd_reader_finish(reader, &stale));
    GIVES(0, shmd_reader_recv(reader, &message, SHMD_FOREVER));
    GIVES(SHMD_ERR_STATE, shmd_reader_finish(reader, &stale));
    GIVES(0, shmd_reader_finish_many(reader, &message, 1, &valid));
    CHECK(valid == 1);

    GIVES(SHMD_ERR_TOO_LARGE, shmd_reader_recv_copy(reader, small, 4, NULL, SHMD_FOREVER));
    GIVES(0, shmd_error_get(&error, sizeof error));
    CHECK(error.number == 12);
    GIVES(SHMD_ERR_TOO_LARGE, shmd_reader_recv_copy(reader, NULL, 0, NULL, SHMD_FOREVER));
    GIVES(SHMD_ERR_INVALID, shmd_reader_recv_copy(reader, NULL, 1, NULL, SHMD_FOREVER));
    GIVES(0, shmd_reader_recv_copy(reader, large, 64, &message, SHMD_FOREVER));
    CHECK(message.seq == 2 && message.len == 12 && memcmp(large, "twelve bytes", 12) == 0);

    GIVES(0, shmd_reader_recv_many(reader, many, 8, &count, SHMD_FOREVER));
    CHECK(count == 8 && many[7].seq == many[0].seq + 7);
    GIVES(SHMD_ERR_STATE, shmd_reader_finish_many(reader, many, 7, &valid));
    GIVES(SHMD_ERR_STATE, shmd_reader_finish(reader, &many[0]));
    GIVES(SHMD_ERR_INVALID, shmd_reader_finish_many(reader, many, 0, &valid));
    GIVES(0, shmd_reader_finish_many(reader, many, 8, &valid));
    CHECK(valid == 8 && many[0].data == NULL && many[7].data == NULL);
    GIVES(SHMD_ERR_STATE, shmd_reader_finish_many(reader, many, 8, &valid));

    memset(&facts, 0xff, sizeof facts);
    GIVES(0, shmd_reader_facts(reader, &facts, sizeof facts));
    CHECK(strcmp(facts.channel, "main") == 0 && facts.align == 16 && facts.on_full == SHMD_BLOCK && facts.handoff == 0);
    GIVES(0, shmd_reader_facts(reader, &facts, 8));
    GIVES(SHMD_ERR_INVALID, shmd_reader_facts(reader, &facts, 0));
    /* A message that is still open. */
    GIVES(0, shmd_reader_recv(reader, &message, SHMD_FOREVER));
    shmd_reader_free(reader);
    shmd_reader_free(other);
}

static void misuses_writers(shmd_endpoint *endpoint, shmd_writer *writer) {
    shmd_writer *second = NULL;
    shmd_writer_state state;
    shmd_facts facts;
    shmd_slot slot, stale;
    shmd_bytes bytes[2] = {{"a", 1}, {NULL, 1}};
    uint64_t seq = 0;
    size_t published = 7;

    GIVES(SHMD_ERR_WRITER_TAKEN, shmd_writer_attach(endpoint, NULL, &second));
    GIVES(SHMD_ERR_INVALID, shmd_writer_publish(writer, NULL, 1, NULL));
    GIVES(SHMD_ERR_INVALID, shmd_writer_publish(writer, "x", (size_t)-1, NULL));
    GIVES(0, shmd_writer_publish(writer, NULL, 0, &seq));
    GIVES(SHMD_ERR_TOO_LARGE, shmd_writer_publish(writer, "x", (size_t)1 << 40, NULL));
    GIVES(SHMD_ERR_STATE, shmd_writer_batch_push(writer, "x", 1, NULL));
    GIVES(SHMD_ERR_STATE, shmd_writer_batch_commit(writer));
    GIVES(SHMD_ERR_INVALID, shmd_writer_publish_many(writer, NULL, 1, NULL));
    GIVES(SHMD_ERR_INVALID, shmd_writer_publish_many(writer, bytes, 2, &published));
    CHECK(published == 1);

    GIVES(SHMD_ERR_INVALID, shmd_writer_reserve(writer, 8, NULL));
    GIVES(0, shmd_writer_reserve(writer, 8, &slot));
    stale = slot;
    GIVES(SHMD_ERR_STATE, shmd_writer_publish(writer, "x", 1, NULL));
    GIVES(SHMD_ERR_STATE, shmd_writer_reserve(writer, 8, &slot));
    GIVES(SHMD_ERR_STATE, shmd_writer_batch_begin(writer));
    GIVES(SHMD_ERR_STATE, shmd_writer_maintain(writer));
    GIVES(SHMD_ERR_INVALID, shmd_writer_commit(writer, &slot, 9, NULL));
    memcpy(slot.data, "12345678", 8);
    GIVES(0, shmd_writer_commit(writer, &slot, 8, &seq));
    GIVES(SHMD_ERR_STATE, shmd_writer_commit(writer, &slot, 0, NULL));
    GIVES(SHMD_ERR_STATE, shmd_writer_commit(writer, &stale, 8, NULL));
    GIVES(SHMD_ERR_STATE, shmd_writer_abort(writer, &stale));
    GIVES(0, shmd_writer_reserve(writer, 8, &slot));
    GIVES(0, shmd_writer_abort(writer, &slot));
    CHECK(slot.data == NULL);
    GIVES(0, shmd_writer_batch_begin(writer));
    GIVES(SHMD_ERR_STATE, shmd_writer_batch_begin(writer));
    GIVES(SHMD_ERR_STATE, shmd_writer_publish(writer, "x", 1, NULL));
    GIVES(0, shmd_writer_batch_push(writer, "x", 1, NULL));
    GIVES(0, shmd_writer_batch_commit(writer));
    GIVES(0, shmd_writer_state_get(writer, &state, sizeof state));
    CHECK(state.messages == 24 && state.bytes == 20 * 12 + 1 + 8 + 1 && state.disconnected == 0);
    GIVES(0, shmd_writer_facts(writer, &facts, sizeof facts));
    CHECK(strcmp(facts.channel, "main") == 0);
    /* A slot that is still open. */
    GIVES(0, shmd_writer_reserve(writer, 8, &slot));
}

void misuses(shmd_endpoint *endpoint) {
    shmd_writer *writer = NULL;
    misuses_nothing(endpoint);
    GIVES(0, shmd_writer_attach(endpoint, NULL, &writer));
    misuses_readers(endpoint, writer);
    misuses_writers(endpoint, writer);
    shmd_writer_free(writer);
    GIVES(0, shmd_writer_attach(endpoint, NULL, &writer));
    shmd_writer_free(writer);
}

void forks(shmd_endpoint *endpoint) {
    shmd_reader *reader = NULL;
    shmd_writer *writer = NULL;
    shmd_message message;
    int status = 0;
    GIVES(0, shmd_writer_attach(endpoint, NULL, &writer));
    GIVES(0, shmd_reader_attach(endpoint, NULL, SHMD_NEW, &reader));
    GIVES(0, shmd_writer_publish(writer, "before", 6, NULL));
    GIVES(0, shmd_reader_recv(reader, &message, SHMD_FOREVER));
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        shmd_reader *own = NULL;
        shmd_writer_state state;
        GIVES(SHMD_ERR_FORKED, shmd_writer_publish(writer, "child", 5, NULL));
        GIVES(SHMD_ERR_FORKED, shmd_writer_batch_begin(writer));
        GIVES(SHMD_ERR_FORKED, shmd_writer_state_get(writer, &state, sizeof state));
        GIVES(SHMD_ERR_FORKED, shmd_reader_finish(reader, &message));
        GIVES(SHMD_ERR_FORKED, shmd_reader_arm(reader));
        CHECK(strstr(shmd_error_message(), "fork()") != NULL && shmd_reader_seq(reader) == 0);
        shmd_reader_free(reader);
        shmd_writer_free(writer);
        GIVES(0, shmd_reader_attach(endpoint, NULL, SHMD_OLDEST, &own));
        GIVES(0, shmd_reader_recv(own, &message, SHMD_SECONDS(100)));
        CHECK(message.len == 6 && memcmp(message.data, "before", 6) == 0);
        shmd_reader_free(own);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    GIVES(0, shmd_reader_finish(reader, &message));
    GIVES(0, shmd_writer_publish(writer, "after", 5, NULL));
    GIVES(0, shmd_reader_recv(reader, &message, SHMD_SECONDS(100)));
    CHECK(message.len == 5 && message.seq == 1);
    GIVES(0, shmd_reader_finish(reader, &message));
    shmd_reader_free(reader);
    shmd_writer_free(writer);
}

void asks(shmd_endpoint *endpoint) {
    shmd_stat stat;
    char **names = NULL, *json = NULL;
    size_t count = 0;
    uint64_t now = 0;
    GIVES(0, shmd_channels(endpoint, &names, &count));
    for (size_t n = 0; n < count; n++) printf("%s\n", names[n]);
    CHECK(names[count] == NULL);
    free(names);
    GIVES(0, shmd_stat_json(endpoint, NULL, &json));
    printf("%s\n", json);
    free(json);
    GIVES(0, shmd_resize(endpoint, "main", 1 << 20, &now));
    CHECK(now == 1 << 20);
    GIVES(SHMD_ERR_OUT_OF_RANGE, shmd_resize(endpoint, "main", 1, NULL));
    GIVES(0, shmd_stat_get(endpoint, "main", &stat, sizeof stat));
    CHECK(stat.capacity == 1 << 20 && stat.align == 16 && stat.readers == 0 && stat.writer_pid == 0 && stat.handoff == 0);
    GIVES(0, shmd_stat_get(endpoint, "pairs", &stat, sizeof stat));
    CHECK(stat.handoff == 1);
    GIVES(SHMD_ERR_NO_SUCH_CHANNEL, shmd_stat_get(endpoint, NULL, &stat, sizeof stat));
    GIVES(SHMD_ERR_NO_SUCH_READER, shmd_evict(endpoint, "main", 7));
    shmd_endpoint *nowhere = NULL;
    GIVES(0, shmd_endpoint_find("/nonexistent", &nowhere));
    GIVES(SHMD_ERR_NO_DAEMON, shmd_stat_json(nowhere, NULL, &json));
    shmd_endpoint_free(nowhere);
}

static void *interrupts(void *writer) {
    usleep(20000);
    shmd_writer_interrupt(writer, 1);
    return NULL;
}

/* A writer that waits for space on a channel of which a reader gives none back. */
void is_interrupted(shmd_endpoint *endpoint) {
    static char bytes[4096];
    shmd_reader *reader = NULL;
    shmd_writer *writer = NULL;
    shmd_message message;
    pthread_t thread;
    int result;
    GIVES(0, shmd_reader_attach(endpoint, NULL, SHMD_NEW, &reader));
    GIVES(0, shmd_writer_attach(endpoint, NULL, &writer));
    GIVES(0, shmd_writer_publish(writer, bytes, sizeof bytes, NULL));
    GIVES(0, shmd_reader_recv(reader, &message, SHMD_FOREVER));
    while ((result = shmd_writer_publish_within(writer, bytes, sizeof bytes, 0, NULL)) == 0) {}
    CHECK(result == SHMD_ERR_WOULD_BLOCK);
    GIVES(SHMD_ERR_TIMED_OUT, shmd_writer_publish_within(writer, bytes, sizeof bytes, SHMD_MILLISECONDS(5), NULL));
    CHECK(pthread_create(&thread, NULL, interrupts, writer) == 0);
    GIVES(SHMD_ERR_INTERRUPTED, shmd_writer_publish(writer, bytes, sizeof bytes, NULL));
    CHECK(pthread_join(thread, NULL) == 0);
    shmd_writer_interrupt(writer, 0);
    GIVES(0, shmd_reader_finish(reader, &message));
    shmd_reader_free(reader);
    GIVES(0, shmd_writer_publish(writer, bytes, sizeof bytes, NULL));
    shmd_writer_free(writer);
}

static uint64_t now_ns(void) {
    struct timespec now;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Each message has its publish time, however it is received, or 0 in a channel without such times. */
void has_times(shmd_endpoint *endpoint, int wanted) {
    shmd_reader *reader = NULL;
    shmd_writer *writer = NULL;
    shmd_message message, many[4];
    char buffer[8];
    size_t count = 0, left = 4;
    const uint64_t begun = now_ns();
    GIVES(0, shmd_reader_attach(endpoint, NULL, SHMD_NEW, &reader));
    GIVES(0, shmd_writer_attach(endpoint, NULL, &writer));
    for (int n = 0; n < 6; n++) GIVES(0, shmd_writer_publish(writer, "time", 4, NULL));
    const uint64_t published = now_ns();
    GIVES(0, shmd_reader_recv(reader, &message, SHMD_FOREVER));
    CHECK(wanted ? message.published_ns >= begun && message.published_ns <= published : message.published_ns == 0);
    GIVES(0, shmd_reader_finish(reader, &message));
    GIVES(0, shmd_reader_recv_copy(reader, buffer, sizeof buffer, &message, SHMD_FOREVER));
    CHECK(wanted ? message.published_ns >= begun && message.published_ns <= published : message.published_ns == 0);
    while (left > 0) {
        GIVES(0, shmd_reader_recv_many(reader, many, left, &count, SHMD_FOREVER));
        for (size_t k = 0; k < count; k++)
            CHECK(wanted ? many[k].published_ns >= begun && many[k].published_ns <= published : many[k].published_ns == 0);
        GIVES(0, shmd_reader_finish_many(reader, many, count, NULL));
        left -= count;
    }
    shmd_writer_free(writer);
    shmd_reader_free(reader);
}

static void is_refused(shmd_endpoint *endpoint, const char *channel, const char *one, const char *other) {
    shmd_reader *reader = NULL;
    shmd_writer *writer = NULL;
    GIVES(SHMD_ERR_OTHER_CONTENT, shmd_reader_attach(endpoint, channel, SHMD_NEW, &reader));
    CHECK(strstr(shmd_error_message(), one) != NULL && strstr(shmd_error_message(), other) != NULL && reader == NULL);
    GIVES(SHMD_ERR_OTHER_CONTENT, shmd_writer_attach(endpoint, channel, &writer));
}

/* The channel "frames" declares protobuf:telemetry.Frame with a text, "plain" declares nothing. */
void has_content(shmd_endpoint *endpoint) {
    shmd_reader *reader = NULL;
    shmd_writer *writer = NULL;
    shmd_content content;
    char *text = NULL;
    size_t len = 7;
    GIVES(0, shmd_endpoint_set_expected(endpoint, "json", NULL));
    is_refused(endpoint, "frames", "protobuf:telemetry.Frame", "expects json");
    is_refused(endpoint, "plain", "declares no content", "expects json");
    GIVES(0, shmd_endpoint_set_expected(endpoint, "protobuf", "telemetry.Other"));
    is_refused(endpoint, "frames", "protobuf:telemetry.Frame", "expects protobuf:telemetry.Other");
    GIVES(0, shmd_endpoint_set_expected(endpoint, "protobuf", "telemetry.Frame"));
    GIVES(0, shmd_reader_attach(endpoint, "frames", SHMD_NEW, &reader));
    GIVES(0, shmd_writer_attach(endpoint, "frames", &writer));
    GIVES(SHMD_ERR_INVALID, shmd_writer_content(writer, &content, 0));
    GIVES(0, shmd_reader_content(reader, &content, sizeof content));
    CHECK(strcmp(content.encoding, "protobuf") == 0 && strcmp(content.schema, "telemetry.Frame") == 0);
    CHECK(strcmp(content.schema_encoding, "proto3") == 0 && content.schema_bytes == strlen("message Frame {}"));
    GIVES(0, shmd_writer_content(writer, &content, sizeof content));
    CHECK(strcmp(content.schema, "telemetry.Frame") == 0);
    shmd_reader_free(reader);
    shmd_writer_free(writer);
    GIVES(0, shmd_endpoint_set_expected(endpoint, NULL, NULL));
    GIVES(0, shmd_reader_attach(endpoint, "plain", SHMD_NEW, &reader));
    GIVES(0, shmd_reader_content(reader, &content, sizeof content));
    CHECK(content.schema_bytes == 0 && content.encoding[0] == 0 && content.schema[0] == 0);
    shmd_reader_free(reader);
    GIVES(0, shmd_schema_get(endpoint, "frames", &text, &len));
    CHECK(len == strlen("message Frame {}") && strcmp(text, "message Frame {}") == 0);
    free(text);
    GIVES(0, shmd_schema_get(endpoint, "plain", &text, &len));
    CHECK(text == NULL && len == 0);
}
