#include "text/chat.h"

#include <fmt/format.h>

#include "base/json.h"
#include "base/utf8.h"
#include "text/chat_eval.h"

namespace qb::text {
namespace {

constexpr size_t longest_source = 4U << 20;

}  // namespace

struct ChatTemplate::Impl {
  std::unique_ptr<chat::Node> root;
};

ChatTemplate::ChatTemplate(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::parse(std::string_view source) {
  if (source.size() > longest_source)
    return Error{Errc::invalid_argument, fmt::format("chat template of {} bytes: at most {} are taken", source.size(), longest_source)};
  if (const size_t at = find_invalid_utf8(source); at != std::string_view::npos)
    return Error{Errc::invalid_argument, fmt::format("chat template: not UTF-8 at byte {}", at)};
  QB_ASSIGN(std::unique_ptr<chat::Node> root, chat::parse_template(source));
  return ChatTemplate(std::make_shared<const Impl>(Impl{std::move(root)}));
}

Result<std::string> ChatTemplate::render(const Json& variables) const {
  if (!variables.is_object()) return Error{Errc::invalid_argument, "the variables of a chat template are an object"};
  QB_ASSIGN(const chat::Value values, chat::from_json(variables));
  return chat::Evaluator(values.members()).run(*impl_->root);
}

}  // namespace qb::text
