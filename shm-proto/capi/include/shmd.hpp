// shmd.hpp: C++17 over shmd.h. Header-only; link with libshmd.
//
// Handles free themselves. A message finishes and a slot aborts itself at the end of its scope. A message of a handoff channel that
// an exception ends is given back instead: it was not processed, and another reader may have it. Every object can be moved, none can
// be copied, and an object that was moved from may only be destroyed or assigned to. Threads, fork() and the lifetime of bytes: see
// shmd.h. A message, slot or batch must not outlive its reader or writer.
//
// Errors, by choice: a call throws shmd::error; with a std::error_code as its last argument it stores the error there instead. Without
// exceptions (-fno-exceptions), an error that is not stored ends the program with its sentence.
#ifndef SHMD_HPP
#define SHMD_HPP

#include "shmd/base.hpp"
#include "shmd/reader.hpp"
#include "shmd/writer.hpp"

#include <string>
#include <vector>

namespace shmd {

// ---- Asking the daemon ----

inline shmd_stat stat(const endpoint &daemon, const std::string &channel = {}, on_error check = {}) {
    shmd_stat stat{};
    check(shmd_stat_get(daemon.get(), detail::name(channel), &stat, sizeof stat));
    return stat;
}
inline std::string stat_json(const endpoint &daemon, const std::string &channel = {}, on_error check = {}) {
    char *json = nullptr;
    check(shmd_stat_json(daemon.get(), detail::name(channel), &json));
    const detail::owned<char> text(json);
    return text != nullptr ? text.get() : "";
}
inline std::string schema(const endpoint &daemon, const std::string &channel = {}, on_error check = {}) {
    char *bytes = nullptr;
    std::size_t len = 0;
    check(shmd_schema_get(daemon.get(), detail::name(channel), &bytes, &len));
    const detail::owned<char> text(bytes);
    return text != nullptr ? std::string(text.get(), len) : std::string();
}
inline std::vector<std::string> channels(const endpoint &daemon, on_error check = {}) {
    char **names = nullptr;
    std::size_t count = 0;
    check(shmd_channels(daemon.get(), &names, &count));
    const detail::owned<char *> texts(names);
    return {names, names + count};
}
inline std::uint64_t resize(const endpoint &daemon, const std::string &channel, std::uint64_t capacity, on_error check = {}) {
    std::uint64_t now = 0;
    check(shmd_resize(daemon.get(), detail::name(channel), capacity, &now));
    return now;
}
inline void evict(const endpoint &daemon, const std::string &channel, std::uint32_t reader, on_error check = {}) {
    check(shmd_evict(daemon.get(), detail::name(channel), reader));
}

} // namespace shmd

#endif
