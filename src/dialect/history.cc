#include "dialect/history.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/diagnostics.h"
#include "base/json.h"

namespace qb {
namespace {

constexpr size_t most_steps = 32, most_sentences = 16, longest = 400;
constexpr size_t longest_text = 1 << 20;  // more than anything that is written here

std::string cut(std::string_view text) {
  if (text.size() <= longest) return std::string(text);
  size_t end = longest - 3;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;
  return std::string(text.substr(0, end)) + "...";
}

constexpr std::pair<const char*, std::string HistoryStep::*> words[] = {
    {"by", &HistoryStep::by}, {"did", &HistoryStep::did}, {"from", &HistoryStep::from}, {"producer", &HistoryStep::producer}, {"to", &HistoryStep::to}};
constexpr std::pair<const char*, std::vector<std::string> HistoryStep::*> lists[] = {
    {"changes", &HistoryStep::changes}, {"repairs", &HistoryStep::repairs}, {"lost", &HistoryStep::lost}};

HistoryStep read_step(const Json& j) {
  HistoryStep out;
  for (const auto& [key, member] : words) out.*member = cut(string_at(j, key));
  for (const auto& [key, member] : lists) {
    const Json* list = find(j, key);
    if (list == nullptr || !list->is_array()) continue;
    for (const Json& e : *list)
      if (e.is_string() && (out.*member).size() < most_sentences) (out.*member).push_back(cut(e.get_ref<const std::string&>()));
  }
  return out;
}

}  // namespace

std::vector<HistoryStep> read_history(const Package& package) {
  for (const PackageFile& file : package.files)
    for (const auto& [key, value] : file.metadata) {
      Json root;
      JsonError error;
      if (key != history_key || value.size() > longest_text || !parse_json(value, root, error, 4) || !root.is_array()) continue;
      std::vector<HistoryStep> out;
      for (const Json& j : root)
        if (j.is_object() && out.size() < most_steps) out.push_back(read_step(j));
      return out;
    }
  return {};
}

std::string history_metadata(std::vector<HistoryStep> steps) {
  if (steps.size() > most_steps) {
    const auto first = steps.begin() + most_steps / 2;
    steps.erase(first, first + static_cast<std::ptrdiff_t>(steps.size() - most_steps));
    first->changes.insert(first->changes.begin(), "steps before this one are left out");
  }
  Json root = Json::array();
  for (const HistoryStep& s : steps) root.push_back(history_json(s));
  return dump_json(root, -1);
}

std::string history_text(const HistoryStep& s) {
  return escape(fmt::format("{} by {}, from {}{} to {}", s.did, s.by, s.from, s.producer.empty() ? "" : fmt::format(" ({})", s.producer), s.to));
}

std::vector<std::string> history_sentences(const HistoryStep& s) {
  std::vector<std::string> out;
  for (const std::string& c : s.changes) out.push_back(escape(c));
  for (const std::string& r : s.repairs) out.push_back("repaired: " + escape(r));
  for (const std::string& l : s.lost) out.push_back("lost: " + escape(l));
  return out;
}

Json history_json(const HistoryStep& s) {
  Json j = Json::object();
  for (const auto& [key, member] : words) j[key] = escape(cut(s.*member));
  for (const auto& [key, member] : lists) {
    j[key] = Json::array();
    const std::vector<std::string>& all = s.*member;
    const size_t shown = all.size() > most_sentences ? most_sentences - 1 : all.size();
    for (size_t i = 0; i < shown; ++i) j[key].push_back(escape(cut(all[i])));
    if (shown < all.size()) j[key].push_back(fmt::format("and {} more", all.size() - shown));
  }
  return j;
}

}  // namespace qb
