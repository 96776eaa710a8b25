// The tests' program in C++, over shmd.hpp. The messages are those of peer.c: numbered, and each byte is known.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <poll.h>
#include <stdexcept>
#include <vector>

#include "shmd.hpp"

#define CHECK(condition)                                                                                                           \
    do {                                                                                                                           \
        if (!(condition)) {                                                                                                        \
            std::fprintf(stderr, "%s:%d: %s does not hold; last error: %s\n", __FILE__, __LINE__, #condition,                      \
                         shmd_error_message());                                                                                    \
            std::exit(1);                                                                                                          \
        }                                                                                                                          \
    } while (0)

namespace {

std::size_t length_of(std::uint64_t n, std::size_t most) { return 8 + static_cast<std::size_t>(n * 7919 % (most - 7)); }
std::byte byte_of(std::uint64_t n, std::size_t k) { return static_cast<std::byte>(n * 31 + k * 7); }

void fill(std::byte *to, std::uint64_t n, std::size_t len) {
    std::memcpy(to, &n, 8);
    for (std::size_t k = 8; k < len; k++) to[k] = byte_of(n, k);
}

void check(shmd::bytes from, std::uint64_t n, std::size_t most) {
    std::uint64_t number = 0;
    CHECK(from.size() == length_of(n, most));
    std::memcpy(&number, from.data(), 8);
    CHECK(number == n);
    for (std::size_t k = 8; k < from.size(); k++) CHECK(from[k] == byte_of(n, k));
}

void sends(const shmd::endpoint &daemon, std::uint64_t count, std::size_t most, const std::string &way) {
    shmd::writer writer(daemon, "");
    std::cout << "attached" << std::endl;
    std::vector<std::byte> bytes(most * 16);
    for (std::uint64_t n = 0; n < count;) {
        const auto len = length_of(n, most);
        if (way == "copy") {
            fill(bytes.data(), n, len);
            CHECK(writer.publish({bytes.data(), len}) == n++);
        } else if (way == "place") {
            if (n % 5 == 0) {
                // Given up: not to be seen.
                CHECK(writer.reserve(100));
            }
            auto slot = writer.reserve(most);
            CHECK(slot && slot.data().size() == most);
            fill(slot.data().data(), n, len);
            CHECK(slot.commit(len) == n++);
        } else if (way == "batch") {
            auto batch = writer.batch();
            for (int k = 0; k < 16 && n < count; k++, n++) {
                fill(bytes.data(), n, length_of(n, most));
                CHECK(batch.push({bytes.data(), length_of(n, most)}) == n);
            }
            if (n % 2 == 0) {
                batch.commit();
            }
        } else {
            std::vector<shmd_bytes> many;
            for (; many.size() < 16 && n < count; n++) {
                auto *const to = bytes.data() + many.size() * most;
                fill(to, n, length_of(n, most));
                many.push_back({to, length_of(n, most)});
            }
            CHECK(writer.publish_many(many.data(), many.size()) == many.size());
        }
    }
    CHECK(writer.state().messages == count);
    std::cout << "sent" << std::endl;
}

void receives(const shmd::endpoint &daemon, std::uint64_t count, std::size_t most, const std::string &way) {
    shmd::reader reader = way == "follow" ? shmd::reader::follow(daemon, "", shmd::start::oldest)
                                          : shmd::reader(daemon, "", shmd::start::oldest);
    std::cout << "attached" << std::endl;
    std::vector<std::byte> bytes;
    for (std::uint64_t n = 0; n < count;) {
        if (way == "copy") {
            CHECK(reader.recv_copy(bytes) == n);
            check({bytes.data(), bytes.size()}, n++, most);
        } else if (way == "poll") {
            if (reader.arm()) {
                pollfd wait{reader.fd(), POLLIN, 0};
                CHECK(poll(&wait, 1, 100000) == 1);
            }
            while (auto message = reader.try_recv()) {
                CHECK(message.seq() == n && message.lost_before() == 0);
                check(message.data(), n++, most);
                if (n % 2 == 0) {
                    message.finish();
                }
            }
        } else if (way == "many") {
            auto messages = reader.recv_many(30);
            for (std::size_t k = 0; k < messages.size(); k++) {
                CHECK(messages.seq(k) == n && messages.lost_before(k) == 0);
                check(messages[k], n++, most);
            }
            const auto size = messages.size();
            CHECK(messages.finish() == size);
        } else {
            auto message = reader.recv(std::chrono::seconds(100));
            check(message.data(), n++, most);
            auto moved = std::move(message);
            CHECK(!message && moved);
            moved.finish();
        }
    }
    CHECK(reader.lost() == 0);
    std::cout << "received" << std::endl;
}

// On a ring, an exception ends messages as the end of their scope does.
void finishes_whatever_happens(const shmd::endpoint &daemon) {
    shmd::writer writer(daemon, "main");
    shmd::reader reader(daemon, "main");
    for (const char *text : {"one", "two", "three"}) writer.publish(shmd::as_bytes(text));
    const std::string before = shmd_error_message();
    for (std::size_t left = 3; left > 0;) {
        try {
            const auto messages = reader.recv_many(static_cast<std::size_t>(-1));
            left -= messages.size();
            throw std::runtime_error("cannot process them");
        } catch (const std::runtime_error &) {
        }
    }
    writer.publish(shmd::as_bytes("four"));
    try {
        const auto message = reader.recv();
        throw std::runtime_error("cannot process it");
    } catch (const std::runtime_error &) {
    }
    CHECK(!reader.try_recv() && before == shmd_error_message());
}

// A message of a handoff channel that is not processed comes to another reader.
void leaves(const shmd::endpoint &daemon, const std::string &way) {
    shmd::reader reader(daemon, "");
    std::cout << "attached" << std::endl;
    try {
        if (way == "back") {
            auto message = reader.recv();
            CHECK(shmd::as_text(message.data()) == "one");
            message.give_back();
            CHECK(!message);
            std::error_code ec;
            message.give_back(ec);
            CHECK(ec == SHMD_ERR_INVALID);
        } else if (way == "many") {
            const auto messages = reader.recv_many(10);
            CHECK(messages.size() == 1);
            throw std::runtime_error("cannot process it");
        } else {
            const auto message = reader.recv();
            throw std::runtime_error("cannot process it");
        }
    } catch (const std::runtime_error &) {
    }
    CHECK(reader.received() == 1);
    std::cout << "left" << std::endl;
}

// Errors by choice, and what frees itself.
void rules(const shmd::endpoint &daemon) {
    std::error_code ec;
    shmd::reader none(daemon, "nobody", shmd::start::fresh, ec);
    CHECK(!none && ec == SHMD_ERR_NO_SUCH_CHANNEL && ec.message() == "SHMD_ERR_NO_SUCH_CHANNEL");
    try {
        shmd::reader reader(daemon, "nobody");
        CHECK(!"an error");
    } catch (const shmd::error &error) {
        CHECK(error.code() == SHMD_ERR_NO_SUCH_CHANNEL && error.facts().code == SHMD_ERR_NO_SUCH_CHANNEL);
        CHECK(std::strstr(error.what(), "nobody") != nullptr);
    }
    {
        shmd::writer writer(daemon, "main", ec);
        CHECK(!ec && writer);
        shmd::writer second(daemon, "main", ec);
        CHECK(!second && ec == SHMD_ERR_WRITER_TAKEN);
        shmd::reader reader(daemon, "main");
        CHECK(!reader.try_recv(ec) && !ec);
        CHECK(reader.wait() == shmd::wait_strategy::adaptive());
        reader.set_wait(shmd::wait_strategy::spin(std::chrono::microseconds(20)));
        CHECK(reader.wait() == shmd::wait_strategy::spin(std::chrono::nanoseconds(20000)));
        reader.set_wait(shmd::wait_strategy::spin(std::chrono::seconds(2)), ec);
        CHECK(ec == SHMD_ERR_INVALID && reader.wait() != shmd::wait_strategy::sleep());
        CHECK(!reader.recv(std::chrono::milliseconds(1), ec) && ec == SHMD_ERR_TIMED_OUT);
        CHECK(writer.publish(shmd::as_bytes("hello"), ec) == 0u && !ec);
        auto message = reader.recv();
        CHECK(shmd::as_text(message.data()) == "hello" && reader.facts().align == 16);
        CHECK(!reader.recv(shmd::forever, ec) && ec == SHMD_ERR_STATE);
        message.give_back(ec);
        CHECK(ec == SHMD_ERR_UNSUPPORTED && message);
        message = shmd::message();
        CHECK(!reader.try_recv());
        CHECK(shmd::stat(daemon).readers == 1 && shmd::stat_json(daemon).find("\"main\"") != std::string::npos);
        CHECK(shmd::channels(daemon) == std::vector<std::string>{"main"});
        CHECK(shmd::resize(daemon, "main", 1 << 20) == 1 << 20);
    }
    finishes_whatever_happens(daemon);
    shmd::writer again(daemon, "main");
    CHECK(again.publish(shmd::as_bytes("again")) == 5u);
    shmd::writer moved = std::move(again);
    CHECK(moved.publish_within(shmd::as_bytes("moved"), std::chrono::seconds(100)) == 6u);
    CHECK(moved.publish_acked(shmd::as_bytes("acked"), std::chrono::seconds(100)) == 7u);
}

// The same channels as in rules.c.
void content(shmd::endpoint &daemon) {
    std::error_code ec;
    daemon.set_expected("json");
    shmd::reader none(daemon, "frames", shmd::start::fresh, ec);
    CHECK(!none && ec == SHMD_ERR_OTHER_CONTENT);
    daemon.set_expected("protobuf", "telemetry.Frame");
    shmd::reader reader(daemon, "frames");
    shmd::writer writer(daemon, "frames");
    CHECK(std::string(reader.content().schema) == "telemetry.Frame");
    CHECK(std::string(writer.content().encoding) == "protobuf");
    daemon.set_expected("");
    CHECK(shmd::reader(daemon, "plain").content().schema_bytes == 0);
    CHECK(shmd::schema(daemon, "frames") == "message Frame {}" && shmd::schema(daemon, "plain").empty());
}

} // namespace

int main(int argc, char **argv) {
    CHECK(argc >= 3);
    const std::string command = argv[1];
    shmd::endpoint daemon(argv[2]);
    if (command == "send" && argc == 6) {
        sends(daemon, std::strtoull(argv[3], nullptr, 10), std::strtoul(argv[4], nullptr, 10), argv[5]);
    } else if (command == "receive" && argc == 6) {
        receives(daemon, std::strtoull(argv[3], nullptr, 10), std::strtoul(argv[4], nullptr, 10), argv[5]);
    } else if (command == "leave" && argc == 4) {
        leaves(daemon, argv[3]);
    } else if (command == "content") {
        content(daemon);
    } else if (command == "rules") {
        rules(daemon);
    } else {
        CHECK(!"a known command");
    }
    return 0;
}
