// Publishing. Include shmd.hpp.
#ifndef SHMD_WRITER_HPP
#define SHMD_WRITER_HPP

#include "base.hpp"

#include <optional>
#include <utility>

namespace shmd {

// Bytes in shared memory to be filled. False if the channel's policy has dropped the message.
class slot {
public:
    slot() = default;
    slot(slot &&other) noexcept : writer_(std::exchange(other.writer_, nullptr)), slot_(other.slot_) {}
    slot &operator=(slot &&other) noexcept {
        slot taken(std::move(other));
        std::swap(writer_, taken.writer_);
        std::swap(slot_, taken.slot_);
        return *this;
    }
    ~slot() { abort(); }
    explicit operator bool() const noexcept { return writer_ != nullptr; }
    mutable_bytes data() const noexcept { return {static_cast<std::byte *>(slot_.data), slot_.len}; }
    // Publishes the first len bytes, and returns the message's number.
    std::uint64_t commit(std::size_t len, on_error check = {}) {
        std::uint64_t seq = 0;
        const int result = shmd_writer_commit(writer_, &slot_, len, &seq);
        if (slot_.data == nullptr) {
            writer_ = nullptr;
        }
        check(result);
        return seq;
    }
    void abort() noexcept {
        if (writer_ != nullptr) {
            shmd_writer_abort(std::exchange(writer_, nullptr), &slot_);
        }
    }

private:
    friend class writer;
    shmd_writer *writer_ = nullptr;
    shmd_slot slot_{};
};

// Messages that become visible together, at the end of the scope at the latest.
class batch {
public:
    batch(batch &&other) noexcept : writer_(std::exchange(other.writer_, nullptr)) {}
    batch &operator=(batch &&) = delete;
    ~batch() {
        if (writer_ != nullptr) {
            shmd_writer_batch_commit(writer_);
        }
    }
    std::optional<std::uint64_t> push(bytes data, on_error check = {}) {
        std::uint64_t seq = 0;
        const int result = check(shmd_writer_batch_push(writer_, data.data(), data.size(), &seq));
        return result == SHMD_OK ? std::optional<std::uint64_t>(seq) : std::nullopt;
    }
    void commit(on_error check = {}) { check(shmd_writer_batch_commit(std::exchange(writer_, nullptr))); }

private:
    friend class writer;
    explicit batch(shmd_writer *writer) : writer_(writer) {}
    shmd_writer *writer_;
};

// The writer role of a channel. A number is that of the message; none if the channel's policy has dropped the message.
class writer {
public:
    using number = std::optional<std::uint64_t>;

    explicit writer(const std::string &channel = {}, on_error check = {}) : writer(nullptr, channel, check) {}
    writer(const endpoint &daemon, const std::string &channel, on_error check = {}) : writer(daemon.get(), channel, check) {}
    explicit operator bool() const noexcept { return handle_ != nullptr; }

    number publish(bytes data, on_error check = {}) {
        std::uint64_t seq = 0;
        const int result = check(shmd_writer_publish(handle_.get(), data.data(), data.size(), &seq));
        return result == SHMD_OK ? number(seq) : std::nullopt;
    }
    number publish_within(bytes data, nanoseconds timeout, on_error check = {}) {
        std::uint64_t seq = 0;
        const int result =
            check(shmd_writer_publish_within(handle_.get(), data.data(), data.size(), timeout.count(), &seq));
        return result == SHMD_OK ? number(seq) : std::nullopt;
    }
    number publish_acked(bytes data, nanoseconds timeout, on_error check = {}) {
        std::uint64_t seq = 0;
        const int result =
            check(shmd_writer_publish_acked(handle_.get(), data.data(), data.size(), timeout.count(), &seq));
        return result == SHMD_OK ? number(seq) : std::nullopt;
    }
    // How many of them were published.
    std::size_t publish_many(const shmd_bytes *messages, std::size_t count, on_error check = {}) {
        std::size_t published = 0;
        check(shmd_writer_publish_many(handle_.get(), messages, count, &published));
        return published;
    }
    slot reserve(std::size_t len, on_error check = {}) {
        slot reserved;
        if (check(shmd_writer_reserve(handle_.get(), len, &reserved.slot_)) == SHMD_OK) {
            reserved.writer_ = handle_.get();
        }
        return reserved;
    }
    shmd::batch batch(on_error check = {}) {
        const int result = check(shmd_writer_batch_begin(handle_.get()));
        return shmd::batch(result == SHMD_OK ? handle_.get() : nullptr);
    }

    void maintain(on_error check = {}) { check(shmd_writer_maintain(handle_.get())); }
    int fd(on_error check = {}) {
        int fd = -1;
        check(shmd_writer_fd(handle_.get(), &fd));
        return fd;
    }
    // From any thread, and from signal handlers.
    void interrupt(bool on) noexcept { shmd_writer_interrupt(handle_.get(), on ? 1 : 0); }
    shmd_writer_state state(on_error check = {}) {
        shmd_writer_state state{};
        check(shmd_writer_state_get(handle_.get(), &state, sizeof state));
        return state;
    }
    shmd_facts facts(on_error check = {}) const {
        shmd_facts facts{};
        check(shmd_writer_facts(handle_.get(), &facts, sizeof facts));
        return facts;
    }
    shmd_content content(on_error check = {}) const {
        shmd_content content{};
        check(shmd_writer_content(handle_.get(), &content, sizeof content));
        return content;
    }
    shmd_writer *get() noexcept { return handle_.get(); }

private:
    writer(const shmd_endpoint *daemon, const std::string &channel, on_error check) {
        shmd_writer *handle = nullptr;
        check(shmd_writer_attach(daemon, detail::name(channel), &handle));
        handle_.reset(handle);
    }
    detail::owned<shmd_writer> handle_;
};

} // namespace shmd

#endif
