// Python's `str`, as far as chat templates use it: code points, white space, case, repr. All texts are valid UTF-8.
//
// Source of truth: CPython 3. Where Unicode's tables would have to be the same version as Python's, or a mapping changes the number of characters, functions
// say that they cannot rather than guess.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qb::text::py {

bool is_space(uint32_t point);
size_t count_points(std::string_view s);
// Byte offsets of all characters, and the end.
std::vector<size_t> point_offsets(std::string_view s);

enum class Side : uint8_t { both, left, right };
// `chars`: the set of characters to remove; nullopt: white space.
std::string_view strip(std::string_view s, Side side, std::optional<std::string_view> chars);
// str.split: nullopt splits at runs of white space. Precondition: `separator` is not empty. `most` < 0: no limit.
std::vector<std::string_view> split(std::string_view s, std::optional<std::string_view> separator, int64_t most);
std::vector<std::string_view> split_lines(std::string_view s);
// str.replace; `most` < 0: all. An empty `old` matches between all characters.
std::string replace(std::string_view s, std::string_view old, std::string_view with, int64_t most);

// False: a character's case mapping is special, or for title and capitalize not ASCII.
bool lower(std::string_view s, std::string& out);
bool upper(std::string_view s, std::string& out);
bool capitalize(std::string_view s, std::string& out);
bool title(std::string_view s, std::string& out);  // str.title

std::string repr(std::string_view s);
std::string float_repr(double d);
std::string json_string(std::string_view s, bool ascii);
std::optional<int64_t> parse_int(std::string_view s, bool& too_large);
std::optional<double> parse_float(std::string_view s);

void append_point(std::string& out, uint32_t point);

}  // namespace qb::text::py
