#include "cli/quantization_options.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/diagnostics.h"
#include "host/host.h"

namespace qb::cli {
namespace {

constexpr std::string_view dotted = "--quantization-config.";
constexpr std::streamsize largest_file = 1 << 20;

// JSON and names are themselves; anything else is a file of JSON where there is one.
Result<std::string> document(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  std::error_code error;
  if (first == text.npos || text[first] == '{' || ir::parse_scheme(text)) return text;
  const bool path = text.ends_with(".json") || text.find('/') != text.npos;
  if (!std::filesystem::is_regular_file(text, error))
    return path ? Result<std::string>(Error{Errc::not_found, fmt::format("there is no file {}", escape(text))}) : Result<std::string>(text);
  std::ifstream in(text, std::ios::binary);
  std::string content(static_cast<size_t>(largest_file) + 1, '\0');
  if (!in || !(in.read(content.data(), largest_file + 1) || in.eof())) return Error{Errc::io, fmt::format("{} cannot be read", escape(text))};
  content.resize(static_cast<size_t>(in.gcount()));
  if (content.find_first_not_of(" \t\r\n") == content.npos) return Error{Errc::invalid_argument, fmt::format("{} is empty", escape(text))};
  return content;
}

}  // namespace

void add_quantization_options(CLI::App& app, QuantizationOptions& o, const char* option, const char* help, const char* type) {
  app.add_option(option, o.text, help)->type_name(type);
  app.add_option("--quantization-config", o.settings, "keys of the configuration: --quantization-config.moe.activation mxfp8, or JSON")
      ->type_name("JSON")
      ->allow_extra_args(false);
  app.add_option("--numerics", o.numerics, "whose rounding and scale rules (default: those of the recipe, else of the dialect)")
      ->check(CLI::IsMember({"modelopt", "llm-compressor"}));
}

Result<pass::QuantizeOptions> quantization(const QuantizationOptions& o, std::string_view dialect) {
  QB_ASSIGN(const std::string text, document(o.text));
  QB_ASSIGN(pass::QuantConfig config, pass::parse_quant_config(text, o.settings));
  QB_ASSIGN(pass::QuantizeOptions out, pass::quantize_options(std::move(config), o.numerics, dialect));
  out.regex = host::compile_regex;
  return out;
}

std::vector<std::string> with_settings(int argc, char** argv) {
  std::vector<std::string> out;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--") {
      out.insert(out.end(), argv + i, argv + argc);
      break;
    }
    if (!word.starts_with(dotted)) {
      out.emplace_back(word);
      continue;
    }
    std::string setting(word.substr(dotted.size()));
    if (setting.find('=') == setting.npos) setting += std::string("=") + (i + 1 < argc ? argv[++i] : "");
    out.emplace_back("--quantization-config");
    out.push_back(std::move(setting));
  }
  return out;
}

}  // namespace qb::cli
