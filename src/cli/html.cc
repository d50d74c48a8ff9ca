#include "cli/html.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "cli/report.h"
#include "cli/totals.h"
#include "dialect/history.h"
#include "dialect/origin.h"
#include "quantbridge/version.h"

namespace qb::cli {
namespace {

// What a page can show: more is counted.
constexpr size_t most_cells = 40'000, most_problems = 200, most_rules = 200, most_text = 400;

constexpr std::string_view style = R"(
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1b1f; --faint: #6a6a72; --line: #d8d8de; --empty: #f3f3f5; --bar: #4c72b0; --error: #b3261e; --warning: #8a5a00; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16161a; --ink: #e8e8ec; --faint: #9a9aa4; --line: #3a3a42; --empty: #212127; --bar: #7fa6e0; --error: #f2b8b5; --warning: #e6c07b; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 76em; padding: 0 1em; }
h1 { font-size: 1.5em; overflow-wrap: anywhere; } h2 { font-size: 1.15em; margin-top: 2em; border-bottom: 1px solid var(--line); } h3 { font-size: 1em; }
table { border-collapse: collapse; } td, th { padding: .15em .7em .15em 0; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--faint); font-weight: normal; } .n { text-align: right; } code { font-size: .92em; } .faint { color: var(--faint); }
.scroll { overflow-x: auto; } .map td { width: 1.5em; min-width: 1.5em; padding: 0; text-align: center; font: .75em monospace; border: 1px solid var(--paper); background: var(--empty); }
.map th { padding: 0 .4em; font-size: .75em; } .map th.k { writing-mode: vertical-rl; height: 9em; text-align: right; }
.key { display: inline-block; margin: .2em 1.2em .2em 0; } .key b { display: inline-block; width: 1.6em; text-align: center; font-family: monospace; margin-right: .4em; }
.bars { display: flex; align-items: flex-end; height: 6em; gap: 1px; border-bottom: 1px solid var(--line); } .bars i { flex: 0 0 1.1em; background: var(--bar); min-height: 1px; }
.axis { display: flex; justify-content: space-between; font-size: .8em; color: var(--faint); } .hist { display: inline-block; margin: 0 2em 1.5em 0; vertical-align: top; }
.error { color: var(--error); } .warning { color: var(--warning); } .problem { margin: 0 0 1em; } .problem div { margin-left: 1.2em; }
.c0 { background: #8ecae6 !important; color: #000; } .c1 { background: #ffb703 !important; color: #000; } .c2 { background: #90be6d !important; color: #000; }
.c3 { background: #cdb4db !important; color: #000; } .c4 { background: #f4978e !important; color: #000; } .c5 { background: #43aa8b !important; color: #000; }
.c6 { background: #e9c46a !important; color: #000; } .c7 { background: #a0c4ff !important; color: #000; } .c8 { background: #ffafcc !important; color: #000; }
.c9 { background: #b5e48c !important; color: #000; } .cm { background: repeating-linear-gradient(45deg, #999 0 4px, #ccc 4px 8px) !important; color: #000; }
)";

std::string shown(std::string_view text) {
  if (text.size() <= most_text) return html_text(text);
  return html_text(text.substr(0, most_text)) + " ...";
}

std::string row(std::string_view key, const std::string& html) {
  return fmt::format("<tr><th>{}<td>{}\n", html_text(key), html);
}

// One scheme: a letter and a colour, both by place, plain numbers last.
class Legend {
 public:
  explicit Legend(const Totals& totals) {
    std::vector<std::pair<std::string, SchemeCount>> all(totals.schemes.begin(), totals.schemes.end());
    std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.second.modules > b.second.modules; });
    for (const auto& [name, count] : all) places_.emplace(name, places_.size()), names_.push_back(name);
  }
  std::string letter(size_t place) const { return place < 26 ? std::string(1, static_cast<char>('A' + place)) : "+"; }
  std::string css(size_t place) const { return place < 10 ? fmt::format("c{}", place) : "cm"; }
  size_t place(const std::string& scheme) const { return places_.at(scheme); }
  std::string html(const Totals& totals) const {
    std::string out = "<p>";
    for (size_t i = 0; i < std::min<size_t>(names_.size(), 40); ++i)
      out += fmt::format("<span class=key><b class={}>{}</b><code>{}</code> {}</span>\n", css(i), letter(i), shown(names_[i]),
                         totals.schemes.at(names_[i]).modules);
    return out + "<span class=key><b class=cm>*</b>several</span></p>\n";
  }

 private:
  std::map<std::string, size_t> places_;
  std::vector<std::string> names_;
};

// "model.layers.3.mlp.experts.7.up_proj" is row 3 of model.layers, column mlp.experts.*.up_proj.
struct Place {
  std::string section, column;
  int64_t layer = -1;
};

bool is_number(std::string_view part) {
  return !part.empty() && part.size() <= 9 && std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
}

Place place_of(std::string_view path) {
  Place out;
  for (size_t at = 0; at <= path.size();) {
    const size_t end = std::min(path.find('.', at), path.size());
    const std::string_view part = path.substr(at, end - at);
    if (is_number(part) && out.layer < 0) {
      out.layer = 0;
      for (char c : part) out.layer = out.layer * 10 + (c - '0');
      out.section = std::move(out.column);
      out.column.clear();
    } else {
      out.column += (out.column.empty() ? "" : ".") + std::string(is_number(part) ? "*" : part);
    }
    at = end + 1;
  }
  return out;
}

struct Cell {
  size_t modules = 0, place = 0;
  bool several = false;
  std::string first, last, scheme;
};

struct Section {
  std::vector<std::string> columns;  // in the order of the model
  std::map<std::string, size_t> index;
  std::map<std::pair<int64_t, size_t>, Cell> cells;
  std::set<int64_t> layers;
};

std::string cell_html(const Cell& c, const Legend& legend) {
  const std::string names = c.modules == 1 ? shown(c.first) : fmt::format("{} modules: {} ... {}", c.modules, shown(c.first), shown(c.last));
  if (c.several) return fmt::format("<td class=cm title=\"{}: several schemes\">*", names);
  return fmt::format("<td class={} title=\"{}: {}\">{}", legend.css(c.place), names, shown(c.scheme), legend.letter(c.place));
}

std::string section_html(const std::string& name, const Section& s, const Legend& legend) {
  std::string out = fmt::format("<h3><code>{}</code></h3>\n", name.empty() ? "outside of layers" : shown(name));
  if (s.layers.size() * s.columns.size() > most_cells)
    return out + fmt::format("<p>{} layers of {} kinds of modules: too many for a map.</p>\n", s.layers.size(), s.columns.size());
  out += "<div class=scroll><table class=map><tr><th>";
  for (const std::string& column : s.columns) out += fmt::format("<th class=k>{}", shown(column));
  for (const int64_t layer : s.layers) {
    out += fmt::format("\n<tr><th>{}", layer < 0 ? std::string() : std::to_string(layer));
    for (size_t column = 0; column < s.columns.size(); ++column) {
      const auto it = s.cells.find({layer, column});
      out += it == s.cells.end() ? std::string("<td>") : cell_html(it->second, legend);
    }
  }
  return out + "</table></div>\n";
}

std::string map_html(const Session& s, const Totals& totals) {
  const Legend legend(totals);
  std::map<std::string, Section> sections;
  for (const ir::Module& m : s.checkpoint.modules) {
    const std::string scheme = scheme_name(m);
    if (scheme.empty()) continue;
    const Place place = place_of(m.path);
    Section& section = sections[place.section];
    const auto [column, added] = section.index.emplace(place.column, section.columns.size());
    if (added) section.columns.push_back(place.column);
    section.layers.insert(place.layer);
    Cell& cell = section.cells[{place.layer, column->second}];
    if (cell.modules++ == 0) {
      cell.place = legend.place(scheme);
      cell.first = m.path;
      cell.scheme = scheme;
    }
    cell.last = m.path;
    cell.several |= cell.scheme != scheme;
  }
  std::string out = legend.html(totals);
  size_t budget = most_cells;
  for (const auto& [name, section] : sections) {
    const size_t cells = section.layers.size() * section.columns.size();
    if (cells > budget) {
      out += fmt::format("<p><code>{}</code>: {} modules, not shown.</p>\n", shown(name), section.cells.size());
      if (sections.size() > 100) break;  // as many sections as names
      continue;
    }
    budget -= cells;
    out += section_html(name, section, legend);
  }
  return out;
}

std::string histogram_html(const ScaleHistogram& h) {
  std::string out =
      fmt::format("<div class=hist><h3>{}{}{}</h3>\n<p class=faint>{} numbers in {} tensors{}{}{}{}</p>\n", html_text(ir::to_string(h.role)),
                  h.scheme.empty() ? "" : " of ", h.scheme.empty() ? std::string() : "<code>" + shown(h.scheme) + "</code>", h.count, h.tensors,
                  h.largest > 0 ? fmt::format(", {:.4g} to {:.4g}", h.least, h.largest) : std::string(),
                  h.zero > 0 ? fmt::format(", {} zero", h.zero) : std::string(), h.negative > 0 ? fmt::format(", {} negative", h.negative) : std::string(),
                  h.not_finite > 0 ? fmt::format(", {} not finite", h.not_finite) : std::string());
  if (h.counts.empty()) return out + "</div>\n";
  const int64_t most = *std::max_element(h.counts.begin(), h.counts.end());
  out += "<div class=bars>";
  for (size_t i = 0; i < h.counts.size(); ++i)
    out +=
        fmt::format("<i style=\"height:{:.1f}%\" title=\"2^{} to 2^{}: {} tensors\"></i>", 100.0 * static_cast<double>(h.counts[i]) / static_cast<double>(most),
                    h.first + static_cast<int>(i), h.first + static_cast<int>(i) + 1, h.counts[i]);
  return out + fmt::format("</div><div class=axis><span>2^{}</span><span>2^{}</span></div></div>\n", h.first, h.first + static_cast<int>(h.counts.size()));
}

std::string problems_html(std::span<const Problem> problems) {
  if (problems.empty()) return "<p>None.</p>\n";
  std::string out;
  for (size_t i = 0; i < std::min(problems.size(), most_problems); ++i) {
    const Problem& p = problems[i];
    out += fmt::format("<div class=problem><b class={}>{}</b> <code>{}</code> ({}) {} {} {}", to_string(p.severity), to_string(p.severity), html_text(p.code),
                       to_string(p.cls), shown(p.file), shown(p.tensor), p.module == p.tensor ? std::string() : shown(p.module));
    for (const auto& [key, text] : {std::pair{"found", &p.found}, std::pair{"expected", &p.expected}, std::pair{"do", &p.action}})
      if (!text->empty()) out += fmt::format("<div><span class=faint>{}</span> {}</div>", key, shown(*text));
    out += "</div>\n";
  }
  if (problems.size() > most_problems) out += fmt::format("<p>... and {} more.</p>\n", problems.size() - most_problems);
  return out;
}

std::string facts_html(const Session& s, const Totals& t) {
  const ir::Checkpoint& c = s.checkpoint;
  std::string out = "<table>\n";
  if (s.dialect != nullptr) out += row("dialect", html_text(s.dialect->name));
  if (!c.quant_algo.empty()) out += row("algorithm", shown(c.quant_algo));
  if (c.topology.family != nullptr)
    out += row("family", fmt::format("{} ({}), {} layers", html_text(c.topology.family->name), shown(c.topology.architecture), c.topology.layers));
  out += row("size", fmt::format("{:.4g} million parameters in {} tensors, {} files, {}", static_cast<double>(t.parameters) / 1e6, s.package.tensors.size(),
                                 s.package.files.size(), size_text(t.bytes)));
  out += row("KV cache", c.kv ? fmt::format("{}, scales for {} layers", html_text(to_string(*c.kv)), c.kv->layers) : "not quantized");
  return out + "</table>\n";
}

std::string schemes_html(const Totals& t) {
  std::string out = "<table><tr><th>scheme<th class=n>modules<th class=n>parameters<th class=n>size<th class=n>bits per weight\n";
  for (const auto& [name, n] : t.schemes)
    out += fmt::format("<tr><td><code>{}</code><td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{:.3f}\n", shown(name), n.modules, n.parameters,
                       size_text(n.bytes), n.bits_per_weight());
  return out + "</table>\n";
}

std::string provenance_html(const Session& s) {
  std::string out = "<table>\n";
  const ir::Producer& producer = s.checkpoint.producer;
  out += row("producer", producer.name.empty() ? "not said" : fmt::format("{} {}", shown(producer.name), shown(producer.version)));
  if (s.dialect != nullptr) out += row("format written down in", html_text(s.dialect->spec));
  for (size_t i = 0; i < std::min(s.checkpoint.exclusions.size(), most_rules); ++i) {
    const ir::Exclusion& e = s.checkpoint.exclusions[i];
    out += row("left out", fmt::format("{} module{} by <code>{}</code> ({})", e.modules, e.modules == 1 ? "" : "s", shown(e.rule), shown(e.from)));
  }
  if (s.checkpoint.exclusions.size() > most_rules) out += row("left out", fmt::format("by {} more rules", s.checkpoint.exclusions.size() - most_rules));
  std::set<std::string> writers;
  for (const PackageFile& f : s.package.files)
    for (const auto& [key, value] : f.metadata)
      if (key == "quantbridge.version") writers.insert(value);
  for (const std::string& w : writers) out += row("files written by", "quantbridge " + shown(w));
  for (const HistoryStep& step : read_history(s.package)) {
    std::string text = html_text(history_text(step));
    for (const std::string& sentence : history_sentences(step)) text += "<br>" + html_text(sentence);
    out += row("history", text);
  }
  if (const Origin origin = read_origin(s.package); !origin.dialect.empty()) {
    out += row("notes for the way back to", shown(origin.dialect));
    for (const auto& [key, value] : origin.document) out += row(key, shown(value));
  }
  for (size_t i = 0; i < std::min(s.package.foreign_files.size(), most_rules); ++i) out += row("not read", shown(s.package.foreign_files[i]));
  return out + "</table>\n";
}

}  // namespace

std::string html_text(std::string_view text) {
  std::string out;
  for (char c : escape(text)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string html_report(const Session& s, std::span<const ScaleHistogram> scales) {
  const Totals totals = totals_of(s);
  const std::string name = html_text(s.path.string());
  std::string out = fmt::format(
      "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport "
      "content=\"width=device-width\">\n<title>{0}</title>\n<style>{1}</style></head>\n<body><h1>{0}</h1>\n",
      name, style);
  out += facts_html(s, totals);
  out += "<h2>Problems</h2>\n" + problems_html(s.diag.all());
  if (s.readable) {
    out += "<h2>Schemes</h2>\n" + schemes_html(totals);
    out += "<h2>Layers</h2>\n" + map_html(s, totals);
    out += "<h2>Scales</h2>\n<p class=faint>What codes or inputs are multiplied by. Bars count tensors by their largest scale, in powers of two.</p>\n";
    for (const ScaleHistogram& h : scales) out += histogram_html(h);
    if (scales.empty()) out += "<p>None are stored.</p>\n";
  }
  out += "<h2>Provenance</h2>\n" + provenance_html(s);
  return out + fmt::format("<p class=faint>quantbridge {}</p>\n</body></html>\n", version);
}

}  // namespace qb::cli
