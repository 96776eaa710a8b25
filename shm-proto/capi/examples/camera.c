/* A camera: fills frames where the readers will see them, and never copies one.
 *
 *     shmd --set main.on_full=drop --set main.capacity=64MiB --set main.align=64 &
 *     cc camera.c $(pkg-config --cflags --libs shmd) -o camera
 *     ./camera 300 33 main       # 300 frames, one every 33 ms, into channel main
 */
#define _POSIX_C_SOURCE 200809L
#include <shmd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WIDTH = 640, HEIGHT = 480 };

/* What a frame begins with; 64 bytes, so that the pixels are aligned as well as the frame. */
struct frame {
    uint64_t number;
    uint64_t time_ns;
    uint32_t width;
    uint32_t height;
    unsigned char unused[40];
    unsigned char pixels[WIDTH * HEIGHT]; /* grey */
};

static uint64_t now_ns(void) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* A real program lets the camera's driver write here. */
static void expose(struct frame *frame, uint64_t number) {
    frame->number = number;
    frame->time_ns = now_ns();
    frame->width = WIDTH;
    frame->height = HEIGHT;
    memset(frame->unused, 0, sizeof frame->unused);
    for (int y = 0; y < HEIGHT; y++) memset(frame->pixels + y * WIDTH, (int)((number + (uint64_t)y) & 0xff), WIDTH);
}

static void pause_for(long ms) {
    const struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

int main(int argc, char **argv) {
    const uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 300;
    const long pause_ms = argc > 2 ? strtol(argv[2], NULL, 10) : 33;
    uint64_t dropped = 0;
    shmd_writer *camera = NULL;
    int result = shmd_writer_attach(NULL, argc > 3 ? argv[3] : NULL, &camera);
    for (uint64_t number = 0; number < count && result >= 0; number++) {
        shmd_slot slot;
        result = shmd_writer_reserve(camera, sizeof(struct frame), &slot);
        if (result == SHMD_OK) {
            /* Whatever happens before the commit, no reader sees a half frame: after a crash, there is none. */
            expose(slot.data, number);
            result = shmd_writer_commit(camera, &slot, sizeof(struct frame), NULL);
        } else if (result == SHMD_DROPPED) {
            dropped++;
        }
        pause_for(pause_ms);
    }
    if (result < 0) fprintf(stderr, "camera: %s\n", shmd_error_message());
    else printf("%llu frames of %zu bytes, %llu dropped\n", (unsigned long long)count, sizeof(struct frame), (unsigned long long)dropped);
    shmd_writer_free(camera);
    return result < 0;
}
