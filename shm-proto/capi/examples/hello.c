/* One message from this program to itself. Usually, reader and writer are two programs.
 *
 *     shmd &
 *     cc hello.c $(pkg-config --cflags --libs shmd) -o hello && ./hello
 */
#include <shmd.h>
#include <stdio.h>

int main(void) {
    shmd_reader *reader = NULL;
    shmd_writer *writer = NULL;
    shmd_message message;
    int result = shmd_reader_attach(NULL, NULL, SHMD_NEW, &reader); /* the daemon's only channel */
    if (result == 0) result = shmd_writer_attach(NULL, NULL, &writer); /* borrows the writer role */
    if (result == 0) result = shmd_writer_publish(writer, "hello", 5, NULL); /* copied once, into shared memory */
    if (result == 0) result = shmd_reader_recv(reader, &message, SHMD_FOREVER); /* nothing is copied */
    if (result == 0) {
        printf("message %llu: %.*s\n", (unsigned long long)message.seq, (int)message.len, (const char *)message.data);
        result = shmd_reader_finish(reader, &message); /* an error if the bytes were overwritten meanwhile */
    }
    if (result < 0) fprintf(stderr, "hello: %s\n", shmd_error_message());
    shmd_writer_free(writer);
    shmd_reader_free(reader);
    return result < 0;
}
