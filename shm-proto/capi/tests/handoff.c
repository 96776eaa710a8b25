/* Messages of a handoff channel that a program takes and does not process. Part of the tests' program. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static void gives_back_a_message(shmd_reader *reader) {
    shmd_message message, stale;
    GIVES(0, shmd_reader_recv(reader, &message, SHMD_SECONDS(100)));
    CHECK(message.seq == 0 && message.len == 3 && memcmp(message.data, "one", 3) == 0);
    CHECK(shmd_reader_seq(reader) == 0 && shmd_reader_received(reader) == 0 && shmd_reader_lost(reader) == 0);
    stale = message;
    GIVES(0, shmd_reader_give_back(reader, &message));
    CHECK(message.data == NULL);
    CHECK(shmd_reader_seq(reader) == 1 && shmd_reader_received(reader) == 1);
    GIVES(SHMD_ERR_STATE, shmd_reader_give_back(reader, &message));
    GIVES(SHMD_ERR_STATE, shmd_reader_give_back(reader, &stale));
    GIVES(SHMD_ERR_STATE, shmd_reader_finish(reader, &stale));
}

/* A message that does not fit was never received. */
static void has_no_place_for_a_message(shmd_reader *reader) {
    shmd_message message = {.generation = 0};
    char small[1];
    GIVES(SHMD_ERR_TOO_LARGE, shmd_reader_recv_copy(reader, small, sizeof small, NULL, SHMD_SECONDS(100)));
    GIVES(SHMD_NONE, shmd_reader_arm(reader));
    GIVES(SHMD_ERR_STATE, shmd_reader_give_back(reader, &message));
    CHECK(shmd_reader_seq(reader) == 0 && shmd_reader_received(reader) == 0);
}

void leaves_a_message(shmd_endpoint *endpoint, const char *way, int follows) {
    shmd_reader *reader = NULL;
    GIVES(0, (follows ? shmd_reader_follow : shmd_reader_attach)(endpoint, NULL, SHMD_OLDEST, &reader));
    puts("attached");
    fflush(stdout);
    if (strcmp(way, "back") == 0) gives_back_a_message(reader);
    else has_no_place_for_a_message(reader);
    shmd_reader_free(reader);
    puts("left");
}
