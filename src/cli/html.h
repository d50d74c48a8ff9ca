// inspect's report as one HTML file: no network, no script; readable in both themes and without colours.
//
// Goals: everything that inspect says, a map of layers by scheme, the sizes of scales, problems with what to do. Names come from files that nobody trusts: all
// text is escaped, and the size is bounded by what a page can show, not by what a file can hold.
#pragma once

#include <span>
#include <string>

#include "bridge/scales.h"

namespace qb::cli {

// Text made safe between tags and in quoted attributes.
std::string html_text(std::string_view);

std::string html_report(const Session&, std::span<const ScaleHistogram>);

}  // namespace qb::cli
