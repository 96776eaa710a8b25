// Receiving. Include shmd.hpp.
#ifndef SHMD_READER_HPP
#define SHMD_READER_HPP

#include "base.hpp"

#include <algorithm>
#include <exception>
#include <optional>
#include <utility>
#include <vector>

namespace shmd {

namespace detail {
// Whether the program has failed to process a message that only this reader has.
inline bool is_unprocessed(shmd_reader *reader) {
    if (std::uncaught_exceptions() == 0) {
        return false;
    }
    shmd_facts facts{};
    return shmd_reader_facts(reader, &facts, sizeof facts) == SHMD_OK && facts.handoff != 0;
}
} // namespace detail

// A message that a reader lends. False if there is none.
class message {
public:
    message() = default;
    message(message &&other) noexcept : reader_(std::exchange(other.reader_, nullptr)), message_(other.message_) {}
    message &operator=(message &&other) noexcept {
        message taken(std::move(other));
        std::swap(reader_, taken.reader_);
        std::swap(message_, taken.message_);
        return *this;
    }
    // An exception that leaves the scope gives a message of a handoff channel back.
    ~message() {
        if (reader_ == nullptr) {
            return;
        }
        if (detail::is_unprocessed(reader_)) {
            shmd_reader_give_back(reader_, &message_);
        } else {
            shmd_reader_finish(reader_, &message_);
        }
    }
    explicit operator bool() const noexcept { return reader_ != nullptr; }
    // Not valid before finish() has said so, if the channel overwrites.
    bytes data() const noexcept { return {static_cast<const std::byte *>(message_.data), message_.len}; }
    std::size_t size() const noexcept { return message_.len; }
    std::uint64_t seq() const noexcept { return message_.seq; }
    std::uint64_t lost_before() const noexcept { return message_.lost_before; }
    // By CLOCK_MONOTONIC; 0 if the channel has no publish times.
    std::uint64_t published_ns() const noexcept { return message_.published_ns; }
    // Ends the message. An error says that the bytes must not be used.
    void finish(on_error check = {}) { check(shmd_reader_finish(std::exchange(reader_, nullptr), &message_)); }
    // Leaves a message of a handoff channel to another reader. On a ring this is an error, and the message stays open.
    void give_back(on_error check = {}) {
        const int result = shmd_reader_give_back(reader_, &message_);
        if (result == SHMD_OK) {
            reader_ = nullptr;
        }
        check(result);
    }

private:
    friend class reader;
    shmd_reader *reader_ = nullptr;
    shmd_message message_{};
};

// Several messages that a reader lends together.
class messages {
public:
    messages() = default;
    messages(messages &&other) noexcept : reader_(std::exchange(other.reader_, nullptr)), lent_(std::move(other.lent_)) {}
    messages &operator=(messages &&other) noexcept {
        messages taken(std::move(other));
        std::swap(reader_, taken.reader_);
        std::swap(lent_, taken.lent_);
        return *this;
    }
    ~messages() {
        if (reader_ == nullptr) {
            return;
        }
        if (detail::is_unprocessed(reader_)) {
            shmd_reader_give_back(reader_, lent_.data());
        } else {
            shmd_reader_finish_many(reader_, lent_.data(), lent_.size(), nullptr);
        }
    }
    std::size_t size() const noexcept { return lent_.size(); }
    bytes operator[](std::size_t n) const { return {static_cast<const std::byte *>(lent_[n].data), lent_[n].len}; }
    std::uint64_t seq(std::size_t n) const { return lent_[n].seq; }
    std::uint64_t lost_before(std::size_t n) const { return lent_[n].lost_before; }
    // Ends the messages. How many of them, from the first on, are valid.
    std::size_t finish(on_error check = {}) {
        std::size_t valid = 0;
        check(shmd_reader_finish_many(std::exchange(reader_, nullptr), lent_.data(), lent_.size(), &valid));
        return valid;
    }

private:
    friend class reader;
    shmd_reader *reader_ = nullptr;
    std::vector<shmd_message> lent_;
};

// How a reader waits for messages: see enum shmd_wait.
class wait_strategy {
public:
    static constexpr wait_strategy adaptive() noexcept { return {SHMD_WAIT_ADAPTIVE, nanoseconds::zero()}; }
    static constexpr wait_strategy sleep() noexcept { return {SHMD_WAIT_SLEEP, nanoseconds::zero()}; }
    static constexpr wait_strategy spin(nanoseconds time) noexcept { return {SHMD_WAIT_SPIN, time}; }
    constexpr shmd_wait way() const noexcept { return way_; }
    // How long it looks before each sleep, if it spins.
    constexpr nanoseconds time() const noexcept { return time_; }
    friend constexpr bool operator==(wait_strategy a, wait_strategy b) noexcept {
        return a.way_ == b.way_ && a.time_ == b.time_;
    }
    friend constexpr bool operator!=(wait_strategy a, wait_strategy b) noexcept { return !(a == b); }

private:
    friend class reader;
    constexpr wait_strategy(shmd_wait way, nanoseconds time) noexcept : way_(way), time_(time) {}
    shmd_wait way_;
    nanoseconds time_;
};

class reader {
public:
    explicit reader(const std::string &channel = {}, start from = start::fresh, on_error check = {})
        : reader(nullptr, channel, from, check) {}
    reader(const endpoint &daemon, const std::string &channel, start from = start::fresh, on_error check = {})
        : reader(daemon.get(), channel, from, check) {}
    // Attaches again, and waits for what is not there yet.
    static reader follow(const endpoint &daemon, const std::string &channel, start from = start::fresh, on_error check = {}) {
        shmd_reader *handle = nullptr;
        check(shmd_reader_follow(daemon.get(), detail::name(channel), static_cast<shmd_start>(from), &handle));
        return reader(handle);
    }
    explicit operator bool() const noexcept { return handle_ != nullptr; }

    // The next message; none after an error.
    message recv(nanoseconds timeout = forever, on_error check = {}) {
        message lent;
        if (check(shmd_reader_recv(handle_.get(), &lent.message_, timeout.count())) == SHMD_OK) {
            lent.reader_ = handle_.get();
        }
        return lent;
    }
    // The next message, or none if there is none now.
    message try_recv(on_error check = {}) {
        message lent;
        if (check(shmd_reader_try_recv(handle_.get(), &lent.message_)) == SHMD_OK) {
            lent.reader_ = handle_.get();
        }
        return lent;
    }
    // At least one message, unless there is an error.
    messages recv_many(std::size_t most, nanoseconds timeout = forever, on_error check = {}) {
        messages lent;
        std::size_t count = 0;
        // No more are lent at once.
        most = std::min<std::size_t>(most, 64);
        lent.lent_.resize(most);
        if (check(shmd_reader_recv_many(handle_.get(), lent.lent_.data(), most, &count, timeout.count())) == SHMD_OK) {
            lent.reader_ = handle_.get();
        }
        lent.lent_.resize(count);
        return lent;
    }
    // Copies the next message into the buffer, which grows when it has to. Returns the message's number.
    std::uint64_t recv_copy(std::vector<std::byte> &buffer, nanoseconds timeout = forever, on_error check = {}) {
        shmd_message facts{};
        buffer.resize(buffer.capacity());
        int result = shmd_reader_recv_copy(handle_.get(), buffer.data(), buffer.size(), &facts, timeout.count());
        while (result == SHMD_ERR_TOO_LARGE) {
            shmd_error needed{};
            shmd_error_get(&needed, sizeof needed);
            buffer.resize(needed.number);
            result = shmd_reader_recv_copy(handle_.get(), buffer.data(), buffer.size(), &facts, timeout.count());
        }
        buffer.resize(result == SHMD_OK ? facts.len : 0);
        check(result);
        return facts.seq;
    }

    void set_wait(wait_strategy wait, on_error check = {}) {
        check(shmd_reader_set_wait(handle_.get(), wait.way(), wait.time().count()));
    }
    wait_strategy wait(on_error check = {}) const {
        shmd_wait way = SHMD_WAIT_ADAPTIVE;
        std::int64_t ns = 0;
        check(shmd_reader_wait_get(handle_.get(), &way, &ns));
        return {way, nanoseconds(ns)};
    }
    // What `shmctl stat` shows of this reader. False: too early after the last change; set it again later.
    bool set_status(const char *status, on_error check = {}) {
        int result = shmd_reader_set_status(handle_.get(), status);
        check(result);
        return result == SHMD_OK;
    }
    // To wait on for POLLIN, after arm() has returned true.
    int fd(on_error check = {}) {
        int fd = -1;
        check(shmd_reader_fd(handle_.get(), &fd));
        return fd;
    }
    // True: wait. False: receive first.
    bool arm(on_error check = {}) { return check(shmd_reader_arm(handle_.get())) == SHMD_OK; }

    std::uint64_t seq() const noexcept { return shmd_reader_seq(handle_.get()); }
    std::uint64_t received() const noexcept { return shmd_reader_received(handle_.get()); }
    std::uint64_t lost() const noexcept { return shmd_reader_lost(handle_.get()); }
    std::uint64_t skipped_before() const noexcept { return shmd_reader_skipped_before(handle_.get()); }
    bool is_attached() const noexcept { return shmd_reader_is_attached(handle_.get()) != 0; }
    shmd_facts facts(on_error check = {}) const {
        shmd_facts facts{};
        check(shmd_reader_facts(handle_.get(), &facts, sizeof facts));
        return facts;
    }
    shmd_content content(on_error check = {}) const {
        shmd_content content{};
        check(shmd_reader_content(handle_.get(), &content, sizeof content));
        return content;
    }
    std::optional<std::string> notice() {
        const char *text = shmd_reader_notice(handle_.get());
        return text != nullptr ? std::optional<std::string>(text) : std::nullopt;
    }
    shmd_reader *get() noexcept { return handle_.get(); }

private:
    explicit reader(shmd_reader *handle) : handle_(handle) {}
    reader(const shmd_endpoint *daemon, const std::string &channel, start from, on_error check) {
        shmd_reader *handle = nullptr;
        check(shmd_reader_attach(daemon, detail::name(channel), static_cast<shmd_start>(from), &handle));
        handle_.reset(handle);
    }
    detail::owned<shmd_reader> handle_;
};

} // namespace shmd

#endif
