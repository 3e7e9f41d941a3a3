"""How frameworks name things, as tables: PyTorch modules, llama.cpp, Flax, Keras, TensorFlow.

A tensor's name is split into segments, in lower case, with ``#`` for numbers; a table speaks of single
segments or of the end of a path. To teach a new convention, add a word here.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

Slot = Literal["pre-attention", "pre-mlp", "cross", "post-attention", "post-mlp", "post-cross", "embedding", ""]
Sublayer = Literal["attention", "mlp", "cross"]


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


def _ends(*patterns: str) -> re.Pattern[str]:
    """A path that ends in one of these, at a dot."""
    return re.compile(rf"(^|\.)({'|'.join(patterns)})$")


def _has(*patterns: str) -> re.Pattern[str]:
    """A path with one of these as a segment."""
    return re.compile(rf"(^|\.)({'|'.join(patterns)})(\.|$)")


# --- segments that say nothing ---------------------------------------------------------------------------------
WRAPPERS = words(
    "module _orig_mod _fsdp_wrapped_module _checkpoint_wrapped_module state_dict model_state_dict base_layer "
    "original_module modules_to_save default params"
)
LAST_WRAPPERS = words("value raw_value params module array data")  # behind a parameter's word: Flax NNX, Haiku

# --- last segment: what a tensor is in its module ---------------------------------------------------------------
SCALES = words("weight gamma scale g w scale_ alpha a_2 affine_weight")
SHIFTS = words("bias beta shift b offset shift_ b_2 affine_bias")
SHIFT_WORD = re.compile(r"bias|beta|shift")  # a vector whose own word says so is never a scale
MATRICES = words("weight vars0 kernel w embedding embeddings in_proj_weight packed_in_proj_weight")
THIN_MATRICES = words("weight kernel vars0")  # with one row or column; `w`, like `g`, may as well be a scale (1, d)
FURTHER_VARIABLES = words("vars1 vars2 vars3")  # of a Keras layer, behind its matrix
PARAMETERS = SCALES | SHIFTS | MATRICES | FURTHER_VARIABLES | words("in_proj_bias")
# Of BatchNorm; and `mean_scale` of GraphNorm, which normalises over the nodes of a graph, as BatchNorm over samples.
BATCH_STATISTICS = words("running_mean running_var num_batches_tracked moving_mean moving_variance mean_scale")

# Side tensors of quantisation, weight normalisation, adapters: never a scale, a shift or a matrix.
SIDE_TENSORS = words(
    "scales biases qweight qzeros g_idx scb weight_format absmax quant_map nested_absmax nested_quant_map weight_scale "
    "weight_scale_inv weight_scale_2 weight_packed weight_shape weight_zero_point weight_global_scale "
    "input_global_scale weight_g_idx zero_point zeros input_scale output_scale activation_scale k_scale v_scale "
    "weight_g weight_v original0 original1 inv_freq rotary_emb lora_magnitude_vector a_log layer_scalar"
)
IGNORED_SEGMENTS = words(
    "lora_a lora_b lora_embedding_a lora_embedding_b lora_down lora_up hada_w1_a hada_w1_b parametrizations optimizer "
    "optimizer_state optimizer_weights exp_avg exp_avg_sq momentum_buffer model_ema ema_model quant_state adapters"
)

# --- norms ------------------------------------------------------------------------------------------------------
# The last word of a norm's path contains "norm", or "ln" or "rms" as a word: ln_1, emb_ln, attn_ln, ln1, ln, attn_rms.
NORM = re.compile(r"norm|layrnorm|(^|_)(ln|rms)(_|\d|$)")
NOT_A_NORM = re.compile(r"weight_norm|normali[sz]er|unnorm|norm_proj|normed")
# Modules of vectors that are no norms: LayerScale, activations, gates.
NOT_UNNAMED = re.compile(
    r"^(ls\d*|\w*scale\w*|gamma\w*|lambda\w*|p?relu\w*|act\w*|snake\w*|alpha\w*|\w*mask\w*|\w*gate)$"
)
# Words of vectors that are neither a norm's nor a matrix's: tokens, embeddings, gates and states of mixers, attention
# sinks, convolutions, activations, statistics; and GRN, which normalises over the positions of an image.
OTHER_VECTOR = re.compile(
    r"token|embed|position|query_?pos|mask|quer(y|ies)$|latent|registers?$|time_|maa|x_[rwkvag]$|[rwkvag]_k$|(^|_)[a-z][0-2]$"
    r"|a_log|(^|_)d$|(^|_)dt|decay|lambda|gate|mix|sinks?$|codebook|code_|freq|rope|rotary|fourier|scale|gamma_\d|(^|_)ls"
    r"|logit|temperature|alpha|beta$|snake|relu|act|window|filter|conv|fc|linear|dense|proj|mean$|std$|var$|count|bias|cluster|usage|grn$|bins$|std_param$"
)
# Of these the words that no scale of a norm has: deviations of a policy, tokens, positions, codes, edges of bins.
NEVER_SCALE = re.compile(
    r"(^|_)log_?(std|sigma|var)|(std|var)(_param)?$|token$|embed(ding)?s?$|position|codebook|(^|_)bins$|freqs?$|mean$"
)
ACTIVATION = re.compile(r"snake|relu|^act(ivation)?(_fn)?_?\d*$")  # slopes and frequencies
PLURAL_NORM = re.compile(r"norms$|norms?_list$|layer_?norm\d?$|^lns$|output_norm$")  # `norms.0`, `layer_norm1.3`
SEVERAL_NORMS = re.compile(r"norms$|norms?_list$|^lns$")  # holds norms by their names
BATCH_NORM = re.compile(r"batch_?norm|(^|_)bn\d*(_|$)")
# In transfer of style (`in1`), of series (RevIN) and in flows (ActNorm: a scale and a shift, initialised on data).
INSTANCE_NORM = re.compile(r"inst(ance)?_?norm|^in_?\d+$|(^|_)rev_?in(_|$)")
ACT_NORM = re.compile(r"act_?norm")
NOT_OURS = (("BatchNorm", BATCH_NORM), ("InstanceNorm", INSTANCE_NORM), ("ActNorm", ACT_NORM))
GROUP_NORM = re.compile(r"group_?norm|(^|_)gn\d*(_|$)")
# GroupNorm under a name that LayerNorm uses elsewhere: U-Nets and autoencoders of diffusers and CompVis.
GROUP_NORM_PATH = _ends(
    r"(resnets|resblocks_?\w*|in_layers|out_layers|attentions)\.(#\.)*(norm[12]?|0)",
    r"(in_layers|out_layers)\.#",
    r"(mid|middle_block|mid_block|down_block|up_block|down|up)\.[\w.#]*norm\w*(\.#)?(\.norm_layer)?",
    r"posnet\.#\.(norm[12]|attn_norm)",
    r"(conv_norm_out|encoder\.norm_out|decoder\.norm_out|encoder\.conv_norm_out)(\.norm_layer)?",
)
FIRST_CONV_NORM = _ends(r"feature_extractor\.conv_layers\.#\.(layer_norm|2\.1)")  # wav2vec2: GroupNorm if it is alone

# MobileBERT's modules called LayerNorm scale and shift, and normalise nothing (`normalization_type` "no_norm").
AFFINE_ONLY = _ends(r"bottleneck[._](input|attention|output)[._]layer_?norm", r"output[._]bottleneck[._]layer_?norm")

QUERY_KEY = re.compile(
    r"^((q|k|qk|query|key|queries|keys)_?(layer_?|rms_?)?(norm|ln)(_?\w+)?|norm_(added_)?(q|k|query|key)"
    r"|\w+_(q|k|qk)_(layer_?|rms_?)?norm|(layer_?norm|ln)_(q|k|qk)|(q|k)_head_norm)$"
)
QUERY_KEY_EACH = re.compile(
    r"(^|\.)(q|k|query|key)_?(layer_?|rms_?)?(norm|ln)\.norms?(\.#)?$"
)  # StableLM: a norm a head
# Norms beside the stream: inside attention, state-space mixers and MLPs, in heads, extra prediction heads.
OTHER_NORM = re.compile(
    r"(^|\.)(indexer|nextn|mtp|compressor|linear_attn|feature_extractor|altup|laurel|pooler|projector|predictions"
    r"|resampler|merger\w*|deepstack_merger\w*|neck|relative_attention_bias|rel_embeddings)(\.|$)"
    r"|(^|_|\.)(q_?[ab]|kv_?[ab]?|q_lora|kv_lora|sub|ssm|ssm_\w+|dt|b|c|v|o|g|gate|gated|router|value|inner|inner_attn"
    r"|multihead|mm_soft_emb|\w*compressor|ffn_routed|per_layer_proj\w*|per_layer_input|laurel_post|altup_router|hc_\w+|ple_\w+|time_mix"
    r"|downsample\w*)_?(layer_?)?(norm|ln)(_\w+)?$|(^|\.)ple_norm_\w+$"
    r"|(^|\.)(ln_x|(depthwise_)?conv_(layer_?)?norm|group_?norm|enorm|hnorm|shared_head_norm|vocab_layer_norm)$"
    r"|(^|\.)(mixer|mamba|mlstm_layer|slstm_layer|conv)\.layer_?norm$"
    r"|(^|\.)(mixer|ffn|mlp|fc|attn|attention|self_attn|mamba|mlstm_layer|slstm_layer|conv)\.(norm|ln|ffn_layernorm"
    r"|inner_attn_ln|ffn_ln)$"
    r"|(^|\.)(transform|lm_head|cls|classifier|mlm_head|head)\.(layer_?norm|ln|norm)$|deberta\.encoder\.layernorm$"
)
# Norms between the stream and the unembedding (BERT's `transform.LayerNorm`).
HEAD_NORM = _ends(r"(\w*predictions|transform|lm_head|mlm_head|cls|head)\.(layer_?norm|ln|norm)", "vocab_layer_norm")

# --- towers -----------------------------------------------------------------------------------------------------
_TOWERS = {
    "vision": "vision_model visual vision_tower vision_encoder image_encoder visual_encoder vision_backbone vision vpm "
    "v vision_embed_tokens image_tower vit_model img_encoder vision_transformer sam_model clip_model "
    "image_embed img_processor conv_encoder",
    "audio": "audio_tower audio_encoder audio_model speech_encoder audio speech_tower codec_model a whisper_model "
    "audio_embed sound_tower speech_tokenizer token2wav code2wav vocoder apm",
    "text": "text_model language_model text_encoder text_decoder llm language_tower text_tower thinker textual "
    "text_backbone",
    "projector": "mm multi_modal_projector mm_projector connector aligner modality_projection mlp1 visual_merger "
    "embed_vision embed_audio audio_projector vision_projector projector",
    "qformer": "qformer q_former resampler perceiver_resampler",
    "tokenizer": "vqmodel vqvae vq_model visual_tokenizer image_tokenizer",
    "talker": "talker",
    "depth": "depth_decoder",
    "units": "t2u_model",
}
TOWERS = {word: tower for tower, words in _TOWERS.items() for word in words.split()}
ONLY_FIRST = words("v a mm vision audio")  # too short to mean a tower anywhere but in front
LETTERS = re.compile(r"blk|proj|pre_|post_|conv|.*embd|input_proj|enc_ctc|deepstack|sam|msfa|std_|boi|eoi|image_|view_")
"""What llama.cpp's names have behind v and a; elsewhere a letter in front is a name that somebody gave a network."""
SIDES = {"encoder": "encoder", "enc": "encoder", "decoder": "decoder", "dec": "decoder"}

# --- blocks -----------------------------------------------------------------------------------------------------
BLOCKS = words(
    "layers layer h blocks blk block resblocks encoder_layers decoder_layers encoder_layer decoder_layer encoderblock "
    "decoderblock transformer_layer transformer_block transformer_layers transformer_blocks albert_layer_groups "
    "albert_layers layer_groups stages single_transformer_blocks spatial_layers temporal_layers auxiliary_layers group "
    "layer_module x_layers r_layers conformer_layers conv_layers groups hidden_layers"
)
AMBIGUOUS_BLOCKS = words("layer group")  # XLNet calls the two halves of an MLP in its blocks layer_1 and layer_2
NUMBERED_BLOCKS = BLOCKS - AMBIGUOUS_BLOCKS
NUMBERED = re.compile(r"^([a-zA-Z_]*[a-zA-Z])_{0,2}(\d+)$")  # encoder_layer_3, block12

# Where a norm sits in its block, by the end of its path. The first match wins.
_NORM = r"_?(layer_?)?(norm|ln)"
_ATTENTION = r"(attn|attention|self_attn|self_attention|sa|mixer|time_mix|temporal_\w+|mlstm)"
_MLP = r"(feed_?forward|ffw|ffn|ff|mlp|moe|channel_mix\w*)"
SLOTS: tuple[tuple[Slot, re.Pattern[str]], ...] = (
    (
        "cross",
        _ends(
            rf"(pre_)?(cross|encoder)_?(attn|attention){_NORM}",
            r"crossattention\.output\.layernorm",
            r"encoder_decoder_attention\.layer_norm",
            "ln_cross_attn",
            "pre_ca_norm",
        ),
    ),
    ("post-cross", _ends(r"post_cross_\w+")),
    (
        "post-attention",
        _ends(
            r"attention\.output\.(layer_?norm|norm)",
            r"attention\.layer_?norm",
            r"rel_attn\.layer_norm",
            "sa_layer_norm",
            "layer_norm_att",
            "norm_post_attn",
            "attn_(output|out)_norm",
            rf"post_{_ATTENTION}(_layer)?{_NORM}(_\d)?",
        ),
    ),
    (
        "post-mlp",
        _ends(
            r"output\.(layer_?norm|norm)",
            r"ff\.layer_norm",
            "output_layer_norm",
            "layer_output_norm",
            "full_layer_layer_norm",
            "post_norm",
            rf"post_{_MLP}{_NORM}(_\d)?",
        ),
    ),
    (
        "pre-mlp",
        _ends(
            rf"(pre_)?{_MLP}{_NORM}(_\d|_?exps)?",
            r"(ln|norm|layer_?norm)_?[23]",
            r"(ln|norm)_(mlp|ffn|ff)",
            "layer_?norm_after",
            rf"pre_{_MLP}",
            "final_layer_?norm",
            r"(mlp|feed_forward|intermediate)\.(layer_?norm|norm)",
            r"(linear_fc1|layernorm_mlp)\.layer_norm",
        ),
    ),
    (
        "pre-attention",
        _ends(
            rf"(input|pre){_NORM}",
            rf"(pre_)?{_ATTENTION}{_NORM}(_2)?",
            r"(ln|norm|layer_?norm)_?1",
            r"(ln|norm)_(attn|pre_attn|mlstm|self_att|a)",
            "layer_?norm_before",
            rf"pre_({_ATTENTION}|mix)",
            "operator_norm",
            r"(linear_qkv|layernorm_qkv|self_attention)\.layer_norm",
        ),
    ),
    ("embedding", _ends("ln_?0")),
)
EMBEDDING_NORM = re.compile(
    r"(^|\.)(embeddings?|word_embeddings|wte|embed_tokens|patch_embed)\.[\w.]*(norm|ln)\w*$"
    r"|(^|[._])(emb\w*_(layer_?)?(norm|ln)|word_embeddings_layer_?norm|token_embd_norm|layer_?norm_emb\w*|norm_emb|norm_pre"
    r"|pre_?lay(er|r)_?norm|layernorm_pre|ln_pre|pre_ln|ln0|ln_in|input_norm|post_conv_layernorm|patch_norm)$"
)
# Norms that close a stack; a last norm of another name counts where none of these is there.
FINAL_NORM = _ends(
    r"(ln_|norm_)(f|final|out|post)",
    r"(final|last|out|output|post|encoder|decoder|transformer|fc)_(layer_?|rms_)?(norm|ln)",
    r"layernorm_(post|final)",
    "norm|ln|layer_?norm",
)

# --- matrices ---------------------------------------------------------------------------------------------------
_READERS: dict[Sublayer, str] = {
    "attention": "q_proj k_proj v_proj qkv qkv_proj c_attn query_key_value wqkv qkv_linear wq wk wv in_proj_weight "
    "packed_in_proj_weight query key value attn_q attn_k attn_v attn_qkv q_lin k_lin v_lin q k v q_a_proj attn_q_a "
    "kv_a_proj_with_mqa attn_kv_a_mqa in_proj in_proj_qkvz in_proj_ba in_proj_qkv in_proj_z in_proj_a in_proj_b "
    "ssm_in linear_qkv linear_q linear_k linear_v receptance to_q to_k to_v to_qkv to_kv qkvz time_mix_key "
    "time_mix_value time_mix_receptance time_mix_gate q_attn query_proj key_proj value_proj q_proj_layer att_proj "
    "attn_gate self_attn_q self_attn_k self_attn_v q_linear k_linear v_linear qkv_fused kv_proj queries keys values "
    "q_einsum kv_einsum qkv_einsum",
    "mlp": "gate_proj up_proj up gate_up_proj fc1 c_fc w1 w3 wi wi_0 wi_1 lin1 dense_h_to_4h ffn_up ffn_gate linear1 "
    "fc11 fc12 fc_in w12 w_in weights_in ffn_gate_exps ffn_up_exps ffn_gate_up_exps ffn_gate_shexp ffn_up_shexp v1 "
    "router ffn_gate_inp linear_fc1 ff_proj up_gate_proj ffn_gate_up shared_expert_gate ffn_gate_inp_shexp wide_fc "
    "mlp_up mlp_gate fc_up lin_1 channel_mix_key channel_mix_receptance intermediate_dense "
    "ffn_gate_chexps ffn_up_chexps gating_einsum",
    "cross": "cross_attn_q cross_attn_k cross_attn_v",
}
READERS: dict[str, Sublayer] = {word: place for place, words in _READERS.items() for word in words.split()}
_QUERIES = re.compile(  # of one letter, only beside a layer's word: `w_q`, `conv_k`, `v_net`
    r"^(\w+_)?qkv(_\w+)?$|^(c|w|fc|lin|linear|conv|attn|att|dense)_(q|k|v|kv)s?$"
    r"|^(q|k|v|kv|query|key|value)_(net|layer|lin|dense|fc|conv)$"
)


@lru_cache(maxsize=4096)
def reader(leaf: str) -> Sublayer | None:
    """Return what a matrix reads a norm for, by the last word of its path; None for a word that does not say so."""
    return READERS.get(leaf) or ("attention" if _QUERIES.match(leaf) else None)


# The second way into a gated MLP, or both ways in one matrix.
GATES = words(
    "gate_proj gate_up_proj w3 wi_1 ffn_gate ffn_gate_exps ffn_gate_up ffn_gate_up_exps up_gate_proj w12 w1w3 mlp_gate "
    "gate_and_up swiglu w_gate gating_einsum"
)
WRITERS = words(
    "o_proj out_proj down wo c_proj attn_output attn_out attn_o out_lin down_proj fc2 w2 lin2 dense_4h_to_h ffn_down "
    "o linear2 fc_out linear_proj linear_fc2 to_out ffn_output ffn_down_exps ffn_down_shexp ffn_down_chexps ssm_out "
    "weights_out w_out output_dense cross_attn_o cross_attn_out time_mix_output channel_mix_value mlp_down fc_down "
    "lin_2 ff_out o_proj_layer attn_proj attn_vec_einsum o_net conv_o"
)
# Words that mean one thing or another by what is around them; asked before the words above.
_FEED_FORWARD = r"(feed_forward|ffn|channel_mix(ing)?|cmix)"
READER_PATHS = _ends(
    r"intermediate\.dense(\.#)?",
    r"ff\.layer_1",
    r"(block_sparse_moe\.gate|router\.layer)",
    rf"{_FEED_FORWARD}\.(key|receptance)",
    r"ff\.net\.0(\.proj)?",
    r"mlp\.0",
    r"mlpblock_\d\.dense_0",
    r"(mlp|feed_forward|ffn)\.(fc_?1|dense_?1|wi|gate|linear_1|layers\.0)",
)
WRITER_PATHS = _ends(
    r"(output|self_output)\.dense(\.#)?",
    r"ff\.layer_2",
    r"(attention|self_attention|attn)\.(dense|output|proj|out|wo)",
    rf"{_FEED_FORWARD}\.value",
    r"ff\.net\.2",
    r"to_out\.0",
    r"mlp\.[23]",
    r"mlpblock_\d\.dense_1",
    r"(att|time_mix(ing)?|tmix)\.output",
    r"multiheaddotproductattention_\d\.out",
    r"(self_?attention|attn)\w*\.out",
    r"mlp\.(dense_2|wo|linear_2|linear)",
)
# Heads, embeddings of time and relative position, convolutions: matrices that do not touch the stream.
NOT_A_MATRIX = _has(
    "pooler|transform|classifier|score|bottleneck|rel_embeddings|relative_attention_bias|position_bias",
    r"rotary\w*|conv\dd?|time_maa\w*|feature_projection|feature_extractor|timestep\w*|time_embed\w*",
    r"\w*adaln\w*|modulation|lora\w*",
)
NOT_A_MATRIX_LEAF = ("_bias", "_scales", "_scale", "_blocks", "_scale_inv")
# The linear layer of an adaptive norm makes scales; it reads a condition, not the stream.
ADAPTIVE_NORM = _ends(r"\w*norm\w*\.(linear|lin|mlp|proj|emb|silu|modulation|[#\d])(\.[#\d])?")
CROSS = re.compile(
    r"(^|[._])(cross_?attn|cross_?attention|encoder_attn|encdecattention|encoder_attention|encoder_decoder_attention|multihead_attn|attn2)(\.|_|$)"
)
CROSS_SOURCE = re.compile(
    r"(^|[._])(k|v|kv|key|value|wk|wv|[kv]_proj|kv_proj|to_[kv]|cross_attn_[kv]|c_attn|[kv]_lin)$"
)
ATTENTION = re.compile(r"(^|[._])(\w*attn\w*|\w*attention\w*|att|mixer|mamba|time_mix\w*|tmix)(\.|$)")
SELF_ATTENTION = re.compile(
    r"self_?att|multi_?head|qkv|in_proj|to_[qkv](\.|$)|(^|[._])(mixer|mamba|t(ime_)?mix\w*)([._]|$)"
)
ATTENDS = re.compile(r"(^|[._])(attn|attention)([._#]|$)")
# A network with one of these words normalises, or mixes tokens as transformers do: maybe by norms without parameters.
BARE_NORM = re.compile(r"norm|(^|[._])ln|adaln|modulat|film|adain|transformer|former|mixing|mamba|ssm|retention|rwkv")
# Cells of LSTM and GRU; and blocks whose norms are scaled and shifted by what a condition says.
RECURRENT = re.compile(r"weight_hh|recurrent_kernel|(^|[._])(lstm|gru)(_?cell)?([._#]|$)")
MODULATION = re.compile(r"(^|[._])(ada_?ln\w*|modulation|mod(_\w+)?|\w+_mod|ada_lin)([._]|$)")
# Words of layers, of which one stands in every path that somebody wrote for people. A path without any may be
# attention's as well as a linear layer's; numbers alone are an nn.Sequential's.
LAYER_WORD = re.compile(
    r"conv|linear|dense|proj|lstm|gru|rnn|cell|recurrent|emb|head|mlp|layer|block|encod|decod|net|score|class|stem|pool"
    r"|hidden|kernel|bottleneck|feat|back|body|neck|model|main|message|update|node|edge|aggr|predict|regress|token"
    r"|channel|patch|stack|key|query|value|weight|word|vec|stage|unit|branch|gcn|sage|critic|actor|policy|state|action|disc"
    r"|gener|expert|router|first|final|(^|[._#])(lins?|fcs?|ffn?|in|out|up|down|res|mu|enc|dec|last|coef|net)(\d|[._#]|$)"
)
EMBEDDINGS = words(
    "embed_tokens wte word_embeddings tok_embeddings token_embd shared tokens_embed embed_in token_embedding emb embed "
    "word_embedding text_embeddings embeddings embedding_layer token_embeddings tok_embed tok_embeds token_emb "
    "word_embed"
)
POSITIONS = re.compile(r"position|pos_?emb|token_type|^wpe$|temporal_embed")
LEARNED_POSITIONS = re.compile(r"(^|[._])(wpe|pos(ition)?(al)?[._]?emb(ed)?(ding)?s?|embed[._]positions)(\.emb(ed)?)?$")
UNEMBEDDINGS = words("lm_head embed_out vocab_projector unembed logits lm_head_weight generator_lm_head output_layer")
UNEMBEDDING_PATHS = re.compile(
    r"(^|\.)(predictions|lm_head|cls)\.decoder$|^(model\.|transformer\.)?(output|head|ff_out)$"
)

# Configuration keys that place norms: true means before the sub-layer, false after it.
PLACED_BEFORE = (
    "do_layer_norm_before",
    "normalize_before",
    "normalize_decoder_before",
    "pre_norm",
    "prenorm",
    "norm_first",
    "do_stable_layer_norm",
)
