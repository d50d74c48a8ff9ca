// Whether the linears that an algorithm scales the inputs of have their factors, as far as the exporter cannot have folded these into what feeds them.
//
// Source of truth: export_hf_checkpoint of nvidia-modelopt 0.47. It multiplies the norm's weight where several linears read one norm, and with NVFP4_AWQ the
// rows of the linear before, where that has as many outputs as this one inputs.
#pragma once

#include <functional>

#include "dialect/reading.h"

namespace qb::modelopt {

// `label_of`: the algorithm of a quantized module. Problems: prescale-missing.
void check_prescales(Reading&, const std::function<std::string_view(const ir::Module&)>& label_of);

}  // namespace qb::modelopt
