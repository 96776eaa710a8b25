// Looks at the frames of camera.c in place, beside standard input in one poll loop. Follows the channel, also across a restart of the
// daemon. Enter shows the figures, the end of input ends the program, and so do COUNT frames.
//
//     c++ -std=c++17 viewer.cpp $(pkg-config --cflags --libs shmd) -o viewer
//     ./viewer main 100
#include <shmd.hpp>

#include <cstdint>
#include <cstring>
#include <iostream>
#include <poll.h>
#include <string>
#include <unistd.h>

namespace {

struct header {
    std::uint64_t number;
    std::uint64_t time_ns;
    std::uint32_t width;
    std::uint32_t height;
};

class viewer {
public:
    viewer(const std::string &channel, std::uint64_t count)
        : reader_(shmd::reader::follow(shmd::endpoint(), channel, shmd::start::oldest)), left_(count) {}

    void run() {
        bool listens = true;
        while (left_ > 0) {
            // False: something is there already. The first call attaches; a pause is a wait, too.
            const bool sleeps = reader_.arm();
            pollfd waits[] = {{reader_.fd(), POLLIN, 0}, {listens ? STDIN_FILENO : -1, POLLIN, 0}};
            poll(waits, 2, sleeps ? -1 : 0);
            while (left_ > 0) {
                auto frame = reader_.try_recv();
                if (!frame) {
                    break;
                }
                see(std::move(frame));
            }
            if (const auto why = reader_.notice()) {
                std::cerr << "viewer: " << *why << std::endl;
            }
            if (waits[1].revents != 0) {
                char line[256];
                if (read(STDIN_FILENO, line, sizeof line) <= 0) {
                    return;
                }
                show();
            }
        }
    }

    void show() const { std::cout << seen_ << " frames seen, " << lost_ << " lost, mean grey " << mean_ << std::endl; }

private:
    void see(shmd::message frame) {
        header head{};
        const auto data = frame.data();
        if (data.size() < 64) {
            return;
        }
        std::memcpy(&head, data.data(), sizeof head);
        // Sizes come from another program: they are checked before they are used.
        const std::uint64_t pixels = std::uint64_t{head.width} * head.height;
        if (pixels == 0 || pixels > data.size() - 64) {
            return;
        }
        std::uint64_t sum = 0;
        for (std::size_t n = 64; n < 64 + pixels; n++) {
            sum += std::to_integer<std::uint64_t>(data[n]);
        }
        lost_ += frame.lost_before();
        std::error_code ec;
        frame.finish(ec);
        // The frame was overwritten while it was looked at: nothing of it counts.
        if (!ec) {
            mean_ = sum / pixels;
            seen_++;
            left_--;
        }
    }

    shmd::reader reader_;
    std::uint64_t left_;
    std::uint64_t seen_ = 0;
    std::uint64_t lost_ = 0;
    std::uint64_t mean_ = 0;
};

} // namespace

int main(int argc, char **argv) {
    try {
        viewer viewer(argc > 1 ? argv[1] : "", argc > 2 ? std::stoull(argv[2]) : UINT64_MAX);
        viewer.run();
        viewer.show();
    } catch (const std::exception &error) {
        std::cerr << "viewer: " << error.what() << std::endl;
        return 1;
    }
    return 0;
}
