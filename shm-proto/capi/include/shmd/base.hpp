// What all of shmd.hpp uses: bytes, errors, where a daemon is. Include shmd.hpp.
#ifndef SHMD_BASE_HPP
#define SHMD_BASE_HPP

#include "../shmd.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#if __has_include(<span>)
#include <span>
#endif

namespace shmd {

#ifdef __cpp_lib_span
using bytes = std::span<const std::byte>;
using mutable_bytes = std::span<std::byte>;
#else
// What is needed of std::span, before C++20.
template <class T> class basic_bytes {
public:
    basic_bytes() = default;
    basic_bytes(T *data, std::size_t size) : data_(data), size_(size) {}
    T *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }
    T *begin() const noexcept { return data_; }
    T *end() const noexcept { return data_ + size_; }
    T &operator[](std::size_t n) const { return data_[n]; }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};
using bytes = basic_bytes<const std::byte>;
using mutable_bytes = basic_bytes<std::byte>;
#endif

inline bytes as_bytes(std::string_view text) { return {reinterpret_cast<const std::byte *>(text.data()), text.size()}; }
inline std::string_view as_text(bytes data) { return {reinterpret_cast<const char *>(data.data()), data.size()}; }

using nanoseconds = std::chrono::nanoseconds;
// Waits without a limit.
constexpr nanoseconds forever{-1};

enum class start { fresh = SHMD_NEW, oldest = SHMD_OLDEST };

namespace detail {
class category : public std::error_category {
public:
    const char *name() const noexcept override { return "shmd"; }
    std::string message(int result) const override { return shmd_result_name(result); }
};
} // namespace detail

// Values are those of shmd_result.
inline const std::error_category &category() {
    static const detail::category category;
    return category;
}
inline std::error_code code(int result) { return {result, category()}; }

} // namespace shmd

// So that an error can be compared: ec == SHMD_ERR_TIMED_OUT.
inline std::error_code make_error_code(shmd_result result) { return shmd::code(result); }
template <> struct std::is_error_code_enum<shmd_result> : std::true_type {};

namespace shmd {

// what() is the library's sentence.
class error : public std::system_error {
public:
    explicit error(int result) : std::system_error(shmd::code(result), shmd_error_message()) {
        shmd_error_get(&facts_, sizeof facts_);
    }
    const shmd_error &facts() const noexcept { return facts_; }

private:
    shmd_error facts_{};
};

// Where an error goes: it is thrown, or stored in the std::error_code that the caller passes.
class on_error {
public:
    on_error() = default;
    on_error(std::error_code &ec) : ec_(&ec) {}
    // The result, unless it is an error that is thrown.
    int operator()(int result) const {
        if (ec_ != nullptr) {
            *ec_ = result < 0 ? shmd::code(result) : std::error_code();
        } else if (result < 0) {
#ifdef __cpp_exceptions
            throw error(result);
#else
            std::fprintf(stderr, "%s\n", shmd_error_message());
            std::abort();
#endif
        }
        return result;
    }

private:
    std::error_code *ec_ = nullptr;
};

namespace detail {
struct freeing {
    void operator()(shmd_endpoint *handle) const { shmd_endpoint_free(handle); }
    void operator()(shmd_reader *handle) const { shmd_reader_free(handle); }
    void operator()(shmd_writer *handle) const { shmd_writer_free(handle); }
    void operator()(char *text) const { std::free(text); }
    void operator()(char **texts) const { std::free(texts); }
};
template <class T> using owned = std::unique_ptr<T, freeing>;
inline const char *name(const std::string &channel) { return channel.empty() ? nullptr : channel.c_str(); }
} // namespace detail

// Where a daemon is. Without a directory: where a client looks. An empty channel name is the daemon's only channel.
class endpoint {
public:
    explicit endpoint(const std::string &runtime_dir = {}, on_error check = {}) {
        shmd_endpoint *handle = nullptr;
        check(shmd_endpoint_find(detail::name(runtime_dir), &handle));
        handle_.reset(handle);
    }
    void set_patience(nanoseconds patience, on_error check = {}) {
        check(shmd_endpoint_set_patience(handle_.get(), patience.count()));
    }
    // Attaches only to channels that declare this content; an empty schema stands for any. An empty encoding admits every channel again.
    void set_expected(const std::string &encoding, const std::string &schema = {}, on_error check = {}) {
        check(shmd_endpoint_set_expected(handle_.get(), detail::name(encoding), detail::name(schema)));
    }
    std::string socket() const {
        const char *path = shmd_endpoint_socket(handle_.get());
        return path != nullptr ? path : "";
    }
    const shmd_endpoint *get() const noexcept { return handle_.get(); }

private:
    detail::owned<shmd_endpoint> handle_;
};

} // namespace shmd

#endif
