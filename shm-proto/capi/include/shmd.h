/* shmd.h: the C interface of shmd, shared-memory messaging for one Linux host.
 *
 * A daemon, shmd, owns channels in /dev/shm. One writer at a time publishes messages in a channel, and any number of readers
 * receive each message in order. A program attaches through the daemon's socket. From then on, messages only touch shared memory.
 *
 * Handles. shmd_endpoint, shmd_reader and shmd_writer are opaque. The program frees each handle with its own function. Where an
 * endpoint is asked for, NULL means shmd_endpoint_find(NULL). Where a channel is asked for, NULL means the daemon's only channel.
 *
 * Results. 0 (SHMD_OK) is success. A positive result, SHMD_NONE or SHMD_DROPPED, says that nothing was received or published and
 * that nothing is wrong. A negative result is one of SHMD_ERR_...; shmd_error_message() then has the sentence for it. A call that
 * fails stores nothing in its results, except where its description says so.
 *
 * Misuse. NULL, a message or a slot of an earlier call, a wrong order of calls and use in a child after fork() are reported as
 * SHMD_ERR_INVALID, SHMD_ERR_STATE and SHMD_ERR_FORKED. A handle that was freed cannot be recognised.
 *
 * Threads. A handle may move from one thread to another. Two threads must not use one handle at the same time, except for
 * shmd_writer_interrupt(). Different handles are independent. The last error belongs to the thread.
 *
 * Fork. A child after fork() must not use a handle of its parent, and attaches by itself. Calls with such a handle return
 * SHMD_ERR_FORKED and change nothing. Freeing the handle in the child releases nothing that the parent needs. The child holds
 * copies of the descriptors until it calls exec() or ends: until then, the daemon does not notice the death of the parent.
 *
 * Signals. A wait goes on after a signal handler has run. Use a timeout, wait on the descriptor, or call shmd_writer_interrupt().
 *
 * Memory. The library calls none of the program's functions. It starts one thread for each handoff reader that waits on its
 * descriptor; that thread takes no signals and ends with the reader. Texts and arrays for the caller come from
 * malloc(); the caller frees them with free(). If the library finds a fault of its own, it says so on standard error and calls
 * abort(). The structures below grow only at their end, and only where a call takes their size.
 */
#ifndef SHMD_H
#define SHMD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SHMD_VERSION_MAJOR 0
#define SHMD_VERSION_MINOR 1
#define SHMD_VERSION_PATCH 0

/* Timeouts are in nanoseconds. With a negative timeout, the call waits without a limit. */
#define SHMD_FOREVER (INT64_C(-1))
#define SHMD_MILLISECONDS(n) (INT64_C(1000000) * (n))
#define SHMD_SECONDS(n) (INT64_C(1000000000) * (n))

/* Results of calls. The numbers never change. */
enum shmd_result {
    SHMD_OK = 0,
    SHMD_NONE = 1,                 /* there is no message now */
    SHMD_DROPPED = 2,              /* on_full = "drop": the channel is full, the message was dropped and counted */

    SHMD_ERR_INVALID = -1,         /* an argument is NULL, or has an impossible value */
    SHMD_ERR_STATE = -2,           /* not now: a message, slot or batch is still open, or is not open any more */
    SHMD_ERR_FORKED = -3,          /* the handle belongs to the parent process */
    SHMD_ERR_UNSUPPORTED = -4,     /* a channel of this mode does not have this */
    SHMD_ERR_TIMED_OUT = -5,       /* the wait timed out; nothing was received, nothing was published */
    SHMD_ERR_WOULD_BLOCK = -6,     /* the call would have to wait; nothing was published */
    SHMD_ERR_INTERRUPTED = -7,     /* shmd_writer_interrupt() ended the wait; nothing was published */
    SHMD_ERR_CLOSED = -8,          /* the channel is closed, and everything in it was received */
    SHMD_ERR_DISCONNECTED = -9,    /* daemon and writer are gone, and everything was received */
    SHMD_ERR_EVICTED = -10,        /* this reader held the channel up and was detached; attach again */
    SHMD_ERR_OVERWRITTEN = -11,    /* the message was overwritten while it was read: do not use its bytes */
    SHMD_ERR_WITHDRAWN = -12,      /* what was read was no message of the channel; receive again */
    SHMD_ERR_OTHER_LAYOUT = -13,   /* the daemon is of another release */
    SHMD_ERR_CORRUPT = -14,        /* the segment is broken */
    SHMD_ERR_PROTOCOL = -15,       /* what the daemon sent cannot be used */
    SHMD_ERR_SYSTEM = -16,         /* a system call failed: see shmd_error.system_errno */
    SHMD_ERR_TOO_LARGE = -17,      /* the message is over the channel's limit, or over the size of the buffer */
    SHMD_ERR_NO_SPACE = -18,       /* the channel cannot grow; nothing was published */
    SHMD_ERR_UNACKNOWLEDGED = -19, /* the message IS published, and some reader has not read it yet */
    SHMD_ERR_REVOKED = -20,        /* the writer role was taken back; nothing was published */
    SHMD_ERR_SUPERSEDED = -21,     /* the role ended during the publish: readers may receive the message, or not */
    SHMD_ERR_LOCKED = -22,         /* handoff: a process holds the mutex of the segment */
    SHMD_ERR_NO_DAEMON = -23,      /* no daemon answers on the socket */
    SHMD_ERR_BAD_NAME = -24,       /* this is no name of a channel */
    SHMD_ERR_OTHER = -25,          /* something else; see the message */

    SHMD_ERR_BAD_REQUEST = -40,     /* the daemon refuses: it does not understand the request */
    SHMD_ERR_BAD_VERSION = -41,     /* the daemon refuses: it speaks another version */
    SHMD_ERR_NO_SUCH_CHANNEL = -42, /* no channel of this name, or several and none was named */
    SHMD_ERR_NOT_PERMITTED = -43,   /* this user may not do this */
    SHMD_ERR_WRITER_TAKEN = -44,    /* another program holds the writer role */
    SHMD_ERR_TOO_MANY = -45,        /* too many readers, or too many clients */
    SHMD_ERR_OUT_OF_RANGE = -46,    /* the size is outside the channel's bounds */
    SHMD_ERR_NO_MEMORY = -47,       /* the daemon refuses: there is no memory for it */
    SHMD_ERR_NO_SUCH_READER = -48,  /* no reader of this number */
    SHMD_ERR_BAD_CONFIG = -49,      /* the configuration is bad */
    SHMD_ERR_BUSY = -50,            /* the daemon is stopping, or changes the channel */
    SHMD_ERR_TRY_LATER = -51,       /* not yet: see shmd_error.retry_after_ms */
    SHMD_ERR_INTERNAL = -52,        /* something failed inside the daemon */
    SHMD_ERR_REFUSED = -53,         /* the daemon refuses for a reason that this library does not know */
    SHMD_ERR_OTHER_CONTENT = -54    /* the channel's content is not what the program expects */
};

/* The facts about the last error of this thread. */
typedef struct shmd_error {
    int32_t code;            /* SHMD_ERR_..., or 0 if no call of this thread has failed */
    int32_t system_errno;    /* the system's reason, or 0 */
    uint64_t number;         /* OVERWRITTEN: messages lost; WITHDRAWN, UNACKNOWLEDGED, SUPERSEDED: the message's number;
                                TOO_LARGE: the limit in bytes; otherwise 0 */
    uint64_t retry_after_ms; /* the request may succeed after this time; 0 if the daemon gave none */
} shmd_error;

/* The sentence for the last error of this thread: which object, which numbers, why, and what to do. "" if there was none. The
 * text is valid until another call of this thread fails. A call that succeeds does not change it. */
const char *shmd_error_message(void);
/* The facts about the last error of this thread. */
int shmd_error_get(shmd_error *error, size_t size);
/* The name of a result, such as "SHMD_ERR_TIMED_OUT". Constant text. */
const char *shmd_result_name(int result);
/* The version of the library that runs, such as "0.1.0". Constant text. */
const char *shmd_version(void);

/* ---- Where a daemon is ---------------------------------------------------------------------------------------------------- */

typedef struct shmd_endpoint shmd_endpoint;

/* The daemon of runtime_dir. With NULL: of SHMD_RUNTIME_DIR, else the user's own, else the system's. The daemon need not run. */
int shmd_endpoint_find(const char *runtime_dir, shmd_endpoint **endpoint);
/* How long an attached program waits for a daemon to come in the place of one that died: 30 s unless SHMD_PATIENCE says
 * otherwise. For attachments made after this call. */
int shmd_endpoint_set_patience(shmd_endpoint *endpoint, int64_t patience_ns);
/* Attaches only to channels whose configuration declares this content: an encoding such as "json", and the name of a schema unless
 * schema is NULL. Readers and writers of other channels are refused with OTHER_CONTENT. encoding NULL (and schema NULL) admits every
 * channel again. For attachments made after this call. */
int shmd_endpoint_set_expected(shmd_endpoint *endpoint, const char *encoding, const char *schema);
/* The path of the control socket, valid as long as the endpoint. NULL for NULL. */
const char *shmd_endpoint_socket(const shmd_endpoint *endpoint);
/* Frees an endpoint. Attachments made through it stay. NULL is allowed. */
void shmd_endpoint_free(shmd_endpoint *endpoint);

/* ---- Facts about a channel ------------------------------------------------------------------------------------------------ */

enum shmd_on_full { SHMD_BLOCK = 0, SHMD_DROP = 1, SHMD_OVERWRITE = 2 };

/* What reader and writer agreed on when they attached. A handoff channel has only name, mode, max_message and ack_timeout_ms. */
typedef struct shmd_facts {
    uint64_t instance;       /* another number for every segment */
    uint64_t lineage;        /* message numbers go on from one segment to the next of the same lineage */
    uint64_t max_capacity;   /* bytes */
    uint64_t max_message;    /* bytes */
    uint64_t ack_timeout_ms; /* the longest wait for acknowledgements */
    uint64_t evict_after_ms; /* 0 for never */
    uint32_t align;          /* of every message, in bytes */
    uint32_t on_full;        /* SHMD_BLOCK, SHMD_DROP or SHMD_OVERWRITE */
    uint32_t ack;            /* 1 if every publish waits for all readers */
    uint32_t wait_readers;   /* publishing waits for this many readers */
    uint32_t max_readers;
    uint32_t handoff;        /* 1 for a handoff channel: one message at a time */
    char channel[72];        /* the name, with a zero at the end */
} shmd_facts;

/* What a channel's configuration declares about its messages, as it was when the program attached. Texts end with a zero, and are
 * empty if nothing is declared. */
typedef struct shmd_content {
    uint64_t schema_bytes;     /* length of the schema's text: see shmd_schema_get(); 0 if there is none */
    char encoding[256];        /* of the messages: a media type, or a word such as "json" */
    char schema[256];          /* the schema's name */
    char schema_encoding[256]; /* the language of the schema's text */
} shmd_content;

/* ---- Receiving ------------------------------------------------------------------------------------------------------------ */

typedef struct shmd_reader shmd_reader;

enum shmd_start {
    SHMD_NEW = 0,   /* the first message published after attaching */
    SHMD_OLDEST = 1 /* the oldest message that is still whole */
};

/* A message that a reader lends to the program, from a receiving call to shmd_reader_finish().
 *
 * The bytes lie in shared memory and are read-only. On a channel with on_full = "block" or "drop" they do not change before the
 * program has finished with the message, unless this reader is evicted. On an "overwrite" channel the writer may overwrite them at
 * any time: decide nothing on what was read before shmd_reader_finish() has returned 0. A hostile writer may change bytes at any
 * time: copy them, then check the copy. After finishing, the bytes must not be read; shmd_reader_finish() sets data to NULL. */
typedef struct shmd_message {
    const void *data;     /* aligned as the channel says */
    size_t len;           /* bytes */
    uint64_t seq;         /* the message's number: from 0, without gaps */
    uint64_t lost_before; /* messages lost between the one received before and this one */
    uint64_t generation;  /* the library's own: tells this message from earlier ones */
    uint64_t published_ns; /* when it was published, CLOCK_MONOTONIC; 0 if the channel has no publish times */
    uint64_t reserved[2]; /* not set */
} shmd_message;

/* Attaches a reader to a channel of either mode. The attachment ends with the daemon, the channel or an eviction; a daemon that
 * dies and is started again is not noticed. */
int shmd_reader_attach(const shmd_endpoint *endpoint, const char *channel, enum shmd_start start, shmd_reader **reader);
/* A reader that attaches again, and waits for a daemon or a channel that is not there yet. The first receiving call attaches. In
 * order, nothing twice; losses are counted. shmd_reader_notice() says why it waits. */
int shmd_reader_follow(const shmd_endpoint *endpoint, const char *channel, enum shmd_start start, shmd_reader **reader);
/* Detaches and frees a reader. A message that is still open is finished; one that did not fit (TOO_LARGE) is given back. NULL is
 * allowed. */
void shmd_reader_free(shmd_reader *reader);

/* How a reader waits for messages: the trade between latency and processor time. A message that finds its reader asleep arrives a
 * wake-up later: 3 to 50 us, depending on the machine. */
enum shmd_wait {
    SHMD_WAIT_ADAPTIVE = 0, /* looks for 3 us before each sleep, and for up to 50 us if the last waits were short. Every reader
                               begins with this; an idle reader costs nothing */
    SHMD_WAIT_SLEEP = 1,    /* sleeps at once: the least processor time */
    SHMD_WAIT_SPIN = 2      /* looks for up to spin_ns before each sleep, and does not offer the processor to others meanwhile: the
                               least latency, for a reader that has a processor of its own */
};

/* Waits in this way from now on; a reader that follows, in every attachment. spin_ns is for SHMD_WAIT_SPIN only: 1 us to 1 s, or
 * INVALID. STATE if a message is open. UNSUPPORTED on a handoff channel, whose readers always sleep. */
int shmd_reader_set_wait(shmd_reader *reader, enum shmd_wait wait, int64_t spin_ns);
/* How a reader waits. *spin_ns (may be NULL) is 0 unless it is SHMD_WAIT_SPIN. */
int shmd_reader_wait_get(const shmd_reader *reader, enum shmd_wait *wait, int64_t *spin_ns);

/* Says what the program is doing, for whoever looks at the channel: `shmctl stat` shows it as the reader's status, in at most 100
 * characters; in a reader that follows, in every attachment. NULL or "": nothing any more. Two changes are at least 100 ms apart: NONE
 * if this one comes too early and has to be made again later. STATE if a message is open. UNSUPPORTED on a handoff channel. */
int shmd_reader_set_status(shmd_reader *reader, const char *status);

/* Waits for the next message. One message is open at a time; finish it before the next call.
 * Errors: TIMED_OUT, CLOSED, DISCONNECTED, EVICTED (which finishing may report first), CORRUPT, SYSTEM; STATE if a message is open. */
int shmd_reader_recv(shmd_reader *reader, shmd_message *message, int64_t timeout_ns);
/* The next message, or SHMD_NONE if there is none now. Never waits. A reader that follows may wait for the daemon's answer when it
 * attaches, 10 s at most. */
int shmd_reader_try_recv(shmd_reader *reader, shmd_message *message);
/* Finishes with a message: its space may be used again. 0: every byte that was read is valid. OVERWRITTEN, WITHDRAWN or EVICTED:
 * the bytes must not be used; lost_before of the next message counts an overwritten one. On a handoff channel this acknowledges the
 * message. Ends the message in any case, unless the result is INVALID, STATE or FORKED. A reader that follows goes on after any of
 * these results. */
int shmd_reader_finish(shmd_reader *reader, shmd_message *message);
/* Leaves a message of a handoff channel to another reader, for a program that cannot process it: ends the message and does not
 * acknowledge it. When the time for an acknowledgement is over, the writer offers the message again, also to this reader, or drops it
 * (on_full). UNSUPPORTED on a ring, each of whose readers receives every message: finish it. */
int shmd_reader_give_back(shmd_reader *reader, shmd_message *message);
/* Lends up to most messages at once, at least one, and stores their number in *count. On an "overwrite" or a handoff channel, in a
 * channel with publish times, and just after attaching, the number is 1. No more than 64 are lent at once. */
int shmd_reader_recv_many(shmd_reader *reader, shmd_message *messages, size_t most, size_t *count, int64_t timeout_ns);
/* Finishes with all messages of shmd_reader_recv_many(). *valid (may be NULL) is the number of messages, from the first on, whose
 * bytes are valid; it is set also if the result is OVERWRITTEN, WITHDRAWN or EVICTED. */
int shmd_reader_finish_many(shmd_reader *reader, shmd_message *messages, size_t count, size_t *valid);
/* Receives by copying into buffer, of capacity bytes. Fills *message (may be NULL), except for data; nothing is left open. A message
 * that was overwritten during the copy counts as lost, and the next one is received. TOO_LARGE: the message is larger than the
 * buffer; shmd_error.number is its size, and it stays the next message (on a handoff channel too). */
int shmd_reader_recv_copy(shmd_reader *reader, void *buffer, size_t capacity, shmd_message *message, int64_t timeout_ns);

/* The one descriptor to wait on, beside others, with poll() or epoll, for POLLIN, level-triggered. It stays the same as long as
 * the reader; the reader owns it. Before each wait call shmd_reader_arm(); after it, receive until SHMD_NONE.
 * A handoff's semaphores have no descriptors: a thread of the library watches them while the reader is armed. It takes nothing, so
 * another reader may take the message first. */
int shmd_reader_fd(shmd_reader *reader, int *fd);
/* Prepares for a wait on the descriptor. 0: wait; the descriptor becomes readable when there may be a message, or news from the
 * daemon, and stays so until the next call. SHMD_NONE: do not wait, receive first. With SHMD_WAIT_SPIN, looks for that time before
 * it returns 0. STATE if a message is open. */
int shmd_reader_arm(shmd_reader *reader);

/* The number of the next message or of the open one, messages received, and messages lost since attaching. 0 for NULL and for a
 * follower that is not attached. */
uint64_t shmd_reader_seq(const shmd_reader *reader);
uint64_t shmd_reader_received(const shmd_reader *reader);
uint64_t shmd_reader_lost(const shmd_reader *reader);
/* Numbers that were skipped just before the open message, because a broken segment was replaced. They do not count as lost. */
uint64_t shmd_reader_skipped_before(const shmd_reader *reader);
/* 1 if the reader is attached: always, unless it follows. 0 otherwise. */
int shmd_reader_is_attached(const shmd_reader *reader);
/* The facts about the channel. STATE for a follower that is not attached. size is sizeof(shmd_facts). */
int shmd_reader_facts(const shmd_reader *reader, shmd_facts *facts, size_t size);
/* What the channel declares about its messages. STATE for a follower that is not attached. size is sizeof(shmd_content). */
int shmd_reader_content(const shmd_reader *reader, shmd_content *content, size_t size);
/* Why a reader that follows waits: a sentence, once; NULL if there is no news. Valid until the next call of this function. */
const char *shmd_reader_notice(shmd_reader *reader);

/* ---- Publishing ----------------------------------------------------------------------------------------------------------- */

typedef struct shmd_writer shmd_writer;

/* Bytes in shared memory that the program fills, from shmd_writer_reserve() to shmd_writer_commit() or shmd_writer_abort(). They
 * contain whatever was there before. */
typedef struct shmd_slot {
    void *data;          /* aligned as the channel says; NULL after commit and abort */
    size_t len;          /* bytes reserved */
    uint64_t generation; /* the library's own */
    uint64_t reserved[1];
} shmd_slot;

/* One message of shmd_writer_publish_many(). */
typedef struct shmd_bytes {
    const void *data;
    size_t len;
} shmd_bytes;

/* Borrows the writer role of a channel, until the handle is freed or the process ends. WRITER_TAKEN if another program has it. */
int shmd_writer_attach(const shmd_endpoint *endpoint, const char *channel, shmd_writer **writer);
/* Gives the role back and frees the handle. An open slot is aborted, an open batch is committed. NULL is allowed. */
void shmd_writer_free(shmd_writer *writer);

/* Publishes a copy of the bytes. *seq (may be NULL) is the message's number. Waits for space on a "block" channel; on a channel with
 * ack = true, waits for all readers. SHMD_DROPPED on a full "drop" channel.
 * Errors: TOO_LARGE, NO_SPACE, REVOKED, SUPERSEDED, UNACKNOWLEDGED, INTERRUPTED. */
int shmd_writer_publish(shmd_writer *writer, const void *data, size_t len, uint64_t *seq);
/* The same within a time; TIMED_OUT if the message was not published. 0 waits for nothing: WOULD_BLOCK. */
int shmd_writer_publish_within(shmd_writer *writer, const void *data, size_t len, int64_t timeout_ns, uint64_t *seq);
/* Publishes, and waits until every attached reader has read the message. UNACKNOWLEDGED if a reader has not read it in time. */
int shmd_writer_publish_acked(shmd_writer *writer, const void *data, size_t len, int64_t timeout_ns, uint64_t *seq);
/* Publishes messages together: readers see them at once, with one look at the readers. *published (may be NULL) is the number of
 * messages that were published, dropped ones not counted; it is set also if a message fails. */
int shmd_writer_publish_many(shmd_writer *writer, const shmd_bytes *messages, size_t count, size_t *published);

/* Reserves len bytes in the ring. SHMD_DROPPED on a full "drop" channel: there is no slot. One slot is open at a time. */
int shmd_writer_reserve(shmd_writer *writer, size_t len, shmd_slot *slot);
/* Publishes the first len bytes of the slot as a message. Ends the slot in any case, unless the result is INVALID, STATE or
 * FORKED. */
int shmd_writer_commit(shmd_writer *writer, shmd_slot *slot, size_t len, uint64_t *seq);
/* Gives the slot up; nothing of it was visible. */
int shmd_writer_abort(shmd_writer *writer, shmd_slot *slot);

/* A batch: messages that become visible together at the commit, or earlier if the writer needs their space. */
int shmd_writer_batch_begin(shmd_writer *writer);
int shmd_writer_batch_push(shmd_writer *writer, const void *data, size_t len, uint64_t *seq);
int shmd_writer_batch_commit(shmd_writer *writer);

/* Hears what the daemon says, goes on with a change of size, and shows a sign of life. A writer that publishes need not call it. One
 * that rests calls it about once a second, and when its descriptor is readable. */
int shmd_writer_maintain(shmd_writer *writer);
/* The descriptor that is readable when the daemon says something. *fd is -1 while there is no daemon. Any call may change it: ask
 * before each wait. */
int shmd_writer_fd(shmd_writer *writer, int *fd);
/* While on is not 0, every wait of this writer ends with INTERRUPTED, or with UNACKNOWLEDGED if the message is published. May be called
 * from a signal handler and from other threads: a handler in the waiting thread ends the wait at once, another thread within a second. */
void shmd_writer_interrupt(shmd_writer *writer, int on);

/* What a writer knows of its channel. */
typedef struct shmd_writer_state {
    uint64_t messages;     /* published since the segment was made */
    uint64_t bytes;        /* payload bytes of these */
    uint64_t dropped;      /* messages dropped since the channel was made */
    uint32_t readers;      /* attached readers */
    uint32_t drained;      /* 1 if every reader has read everything */
    uint32_t shrinking;    /* 1 if a shrink waits for readers: maintain again soon */
    uint32_t disconnected; /* 1 if the daemon is gone and none came in its place; readers still receive */
} shmd_writer_state;

int shmd_writer_state_get(shmd_writer *writer, shmd_writer_state *state, size_t size);
int shmd_writer_facts(const shmd_writer *writer, shmd_facts *facts, size_t size);
int shmd_writer_content(const shmd_writer *writer, shmd_content *content, size_t size);

/* ---- Asking the daemon ---------------------------------------------------------------------------------------------------- */

/* The important figures of `shmctl stat`. */
typedef struct shmd_stat {
    uint64_t capacity;         /* bytes */
    uint64_t min_capacity;     /* bytes */
    uint64_t max_capacity;     /* bytes */
    uint64_t pending_capacity; /* a capacity that takes effect later; 0 for none */
    uint64_t memory;           /* bytes in /dev/shm */
    uint64_t used;             /* bytes that the slowest reader has not read yet */
    uint64_t retained;         /* bytes that a reader from the oldest message on would find */
    uint64_t max_message;      /* bytes */
    uint64_t messages;         /* published since the segment was made */
    uint64_t bytes;
    uint64_t dropped;
    uint64_t overwritten;
    uint64_t resizes;
    uint64_t evicted;
    uint64_t lag_messages; /* of the slowest reader */
    double messages_per_s;
    double bytes_per_s;
    uint32_t align;
    uint32_t readers;
    uint32_t max_readers;
    uint32_t writer_pid; /* 0 for none */
    uint32_t handoff;    /* 1 for a handoff channel */
    uint32_t reserved;
} shmd_stat;

/* The figures of one channel. */
int shmd_stat_get(const shmd_endpoint *endpoint, const char *channel, shmd_stat *stat, size_t size);
/* Everything that `shmctl stat --json` has, of one channel or, with NULL, of all: a JSON array. The caller frees *json. */
int shmd_stat_json(const shmd_endpoint *endpoint, const char *channel, char **json);
/* The names of the channels that this user may see; after the last comes NULL. The caller frees *names, which holds the texts. */
int shmd_channels(const shmd_endpoint *endpoint, char ***names, size_t *count);
/* The text of a channel's schema, with a zero behind it that *len does not count. *text is NULL and *len 0 if the channel declares
 * no text. The caller frees *text. */
int shmd_schema_get(const shmd_endpoint *endpoint, const char *channel, char **text, size_t *len);
/* Asks for a capacity. *now (may be NULL) is the capacity now or soon: a shrink waits for the readers. */
int shmd_resize(const shmd_endpoint *endpoint, const char *channel, uint64_t bytes, uint64_t *now);
/* Detaches a reader by its number in stat. */
int shmd_evict(const shmd_endpoint *endpoint, const char *channel, uint32_t reader);

#ifdef __cplusplus
}
#endif

#endif
