// Chat templates: the Jinja subset that real models' templates use. An unsupported construct is an error that names it, never a wrong prompt.
//
// Source of truth: Jinja2 as transformers configures it (trim_blocks, lstrip_blocks, loopcontrols, tojson, raise_exception, strftime_now).
// docs/chat_templates.md lists the constructs. Steps, output size and recursion are bounded; total over any bytes (fuzzed).
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/json_fwd.h"
#include "base/result.h"

namespace qb::text {

class ChatTemplate {
 public:
  // Errors name the construct and its line.
  static Result<ChatTemplate> parse(std::string_view source);
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // `variables` is an object: messages, add_generation_prompt, bos_token, eos_token, tools, ... raise_exception() in the template is an error with its text.
  Result<std::string> render(const Json& variables) const;

 private:
  struct Impl;
  explicit ChatTemplate(std::shared_ptr<const Impl>);
  std::shared_ptr<const Impl> impl_;
};

}  // namespace qb::text
