"""How frameworks name things, as tables: PyTorch modules, llama.cpp, Flax, Keras, TensorFlow.

A tensor's name is split into segments; tables speak of single segments (lower case) or of the path
inside a block. To teach a new convention, add a word here.
"""

from __future__ import annotations

import re
from typing import Literal

Slot = Literal["pre-attention", "pre-mlp", "cross", "post-attention", "post-mlp", "post-cross", "embedding", ""]

# --- segments that say nothing ---------------------------------------------------------------------------------
WRAPPERS = frozenset(
    "module _orig_mod _fsdp_wrapped_module _checkpoint_wrapped_module state_dict model_state_dict base_layer original_module "
    "modules_to_save default params".split()
)

# --- last segment: what a tensor is in its module ---------------------------------------------------------------
SCALES = frozenset("weight gamma scale g w".split())
SHIFTS = frozenset("bias beta shift b offset".split())
MATRICES = frozenset("weight vars0 kernel w embedding embeddings in_proj_weight packed_in_proj_weight".split())
PARAMETERS = SCALES | SHIFTS | MATRICES | frozenset("in_proj_bias vars0 vars1 vars2 vars3".split())
BATCH_STATISTICS = frozenset("running_mean running_var num_batches_tracked moving_mean moving_variance".split())

# Side tensors of quantisation, weight normalisation, adapters: never a scale, a shift or a matrix.
SIDE_TENSORS = frozenset(
    "scales biases qweight qzeros g_idx scb weight_format absmax quant_map nested_absmax nested_quant_map weight_scale "
    "weight_scale_inv weight_scale_2 weight_packed weight_shape weight_zero_point weight_global_scale input_global_scale "
    "weight_g_idx zero_point zeros input_scale output_scale activation_scale k_scale v_scale weight_g weight_v original0 "
    "original1 inv_freq rotary_emb lora_magnitude_vector a_log layer_scalar".split()
)
IGNORED_SEGMENTS = frozenset(
    "lora_a lora_b lora_embedding_a lora_embedding_b lora_down lora_up hada_w1_a hada_w1_b parametrizations optimizer "
    "optimizer_state optimizer_weights exp_avg exp_avg_sq momentum_buffer model_ema ema_model quant_state adapters".split()
)

# --- norms ------------------------------------------------------------------------------------------------------
# The last segment of a norm's path contains "norm", or "ln" as a word: ln_1, emb_ln, attn_ln, ln1, ln.
NORM = re.compile(r"norm|layrnorm|(^|_)ln(_|\d|$)")
NOT_A_NORM = re.compile(r"weight_norm|normali[sz]er|unnorm|norm_proj|normed")
PLURAL_NORM = re.compile(
    r"norms$|norms?_list$|layer_norm\d?$|layernorm\d?$|^lns$|output_norm$"
)  # `norms.0`, `layer_norm1.3`
BATCH_NORM = re.compile(r"batch_?norm|(^|_)bn\d*(_|$)")
GROUP_NORM = re.compile(r"group_?norm|(^|_)gn\d*(_|$)")
# GroupNorm under a name that LayerNorm uses elsewhere: U-Nets and autoencoders of diffusers and CompVis.
GROUP_NORM_PATH = re.compile(
    r"(^|\.)(resnets|resblocks_?\w*|in_layers|out_layers|attentions)\.(#\.)*(norm[12]?|0)$"
    r"|(^|\.)(mid|middle_block|mid_block|down_block|up_block|down|up)\.[\w.#]*norm\w*(\.#)?(\.norm_layer)?$"
    r"|(^|\.)(conv_norm_out|encoder\.norm_out|decoder\.norm_out|encoder\.conv_norm_out)(\.norm_layer)?$"
)
FIRST_CONV_NORM = re.compile(r"(^|\.)feature_extractor\.conv_layers\.#\.(layer_norm|2\.1)$")

QUERY_KEY = re.compile(
    r"^((q|k|qk|query|key|queries|keys)_?(layer_?|rms_?)?(norm|ln)(_?\w+)?|norm_(added_)?(q|k|query|key)|(attn|attention|cross_attn)_(q|k)_norm"
    r"|(layer_?norm|ln)_(q|k|qk)|(q|k)_head_norm)$"
)
# Norms beside the stream: inside attention, state-space mixers and MLPs, in heads, extra prediction heads.
OTHER_NORM = re.compile(
    r"(^|\.)(indexer|nextn|mtp|compressor|linear_attn|feature_extractor|altup|laurel|pooler|projector|predictions"
    r"|resampler|relative_attention_bias|rel_embeddings)(\.|$)"
    r"|(^|_|\.)(q_?[ab]|kv_?[ab]?|q_lora|kv_lora|sub|ssm|ssm_\w+|dt|b|c|v|o|g|gate|gated|router|value|inner|inner_attn"
    r"|multihead|mm_soft_emb|per_layer_proj\w*|per_layer_input|laurel_post|altup_router|hc_\w+|ple_\w+|time_mix|downsample\w*)"
    r"_?(layer_?)?(norm|ln)(_\w+)?$"
    r"|(^|\.)(ln_x|(depthwise_)?conv_(layer_?)?norm|group_?norm|enorm|hnorm|shared_head_norm|vocab_layer_norm)$"
    r"|(^|\.)(mixer|mlp|fc|mamba|mlstm_layer|slstm_layer|conv)\.layer_?norm$"
    r"|(^|\.)(mixer|ffn|mlp|fc|attn|attention|self_attn|mamba|mlstm_layer|slstm_layer|conv)\.(norm|ln|ffn_layernorm"
    r"|inner_attn_ln|ffn_ln)$"
    r"|(^|\.)(transform|lm_head|cls|classifier|mlm_head|head)\.(layer_?norm|ln|norm)$|deberta\.encoder\.layernorm$",
)
# Norms between the stream and the unembedding (BERT's `transform.LayerNorm`).
HEAD_NORM = re.compile(
    r"(^|\.)((\w*predictions|transform|lm_head|mlm_head|cls|head)\.(layer_?norm|ln|norm)|vocab_layer_norm)$"
)

# --- towers -----------------------------------------------------------------------------------------------------
TOWERS = {
    **dict.fromkeys(
        "vision_model visual vision_tower vision_encoder image_encoder visual_encoder vision_backbone vision_embed_tokens "
        "vision vpm image_tower vit_model img_encoder vision_transformer sam_model v clip_model image_embed img_processor conv_encoder".split(),
        "vision",
    ),
    **dict.fromkeys(
        "audio_tower audio_encoder audio_model speech_encoder audio speech_tower codec_model a whisper_model audio_embed sound_tower "
        "speech_tokenizer token2wav code2wav vocoder apm".split(),
        "audio",
    ),
    **dict.fromkeys("text_model language_model text_encoder text_decoder llm language_tower text_tower thinker textual text_backbone".split(), "text"),
    **dict.fromkeys(
        "mm multi_modal_projector mm_projector connector aligner modality_projection mlp1 visual_merger embed_vision embed_audio "
        "audio_projector vision_projector projector".split(),
        "projector",
    ),
    **dict.fromkeys("qformer q_former resampler perceiver_resampler".split(), "qformer"),
    **dict.fromkeys("vqmodel vqvae vq_model visual_tokenizer image_tokenizer".split(), "tokenizer"),
    "talker": "talker",
    "depth_decoder": "depth",
    "t2u_model": "units",
}  # fmt: skip
ONLY_FIRST = frozenset("v a mm vision audio".split())  # too short to mean a tower anywhere but in front
SIDES = {"encoder": "encoder", "enc": "encoder", "decoder": "decoder", "dec": "decoder"}

# --- blocks -----------------------------------------------------------------------------------------------------
BLOCKS = frozenset(
    "layers layer h blocks blk block resblocks encoder_layers decoder_layers encoder_layer decoder_layer encoderblock "
    "decoderblock transformer_layer transformer_block transformer_layers transformer_blocks albert_layer_groups albert_layers "
    "layer_groups stages single_transformer_blocks spatial_layers temporal_layers auxiliary_layers group layer_module "
    "x_layers r_layers conformer_layers conv_layers groups hidden_layers".split()
)
NUMBERED_BLOCKS = BLOCKS - {"layer", "group"}  # XLNet calls the two halves of an MLP layer_1 and layer_2
NUMBERED = re.compile(r"^([a-z_]*?[a-z])_*(?:_\.)?_?(\d+)$")  # encoder_layer_3, layer_._3, block12

# Where a norm sits in its block, from the end of the path inside the block (lower case). First match wins.
SLOTS: tuple[tuple[re.Pattern[str], Slot], ...] = tuple(
    (re.compile(rf"(^|\.)({pattern})$"), slot)
    for pattern, slot in (
        (r"(pre_)?(cross|encoder)_?attn_(layer_?)?norm|crossattention\.output\.layernorm|cross_attn_(ln|norm)|cross_attention_layer_?norm"
         r"|encoder_attn_layer_?norm|layer\.1\.layer_norm|post_attention_layernorm_cross|ln_cross_attn|pre_ca_norm|cross_attention_norm", "cross"),
        (r"post_cross_\w+", "post-cross"),
        (r"attention\.output\.(layer_?norm|norm)|attention\.layer_?norm|sa_layer_norm|layer_norm_att|rel_attn\.layer_norm", "post-attention"),
        (r"rel_ff\.layer_norm|ff\.layer_norm|output\.(layer_?norm|norm)|output_layer_norm|layer_output_norm|full_layer_layer_norm", "post-mlp"),
        (r"post_(attention|attn|self_attn|sa|attention_layer|mixer|self_attention)_?(layer_?)?(norm|layernorm|layer_norm|ln)(_\d)?"
         r"|attn_output_norm|norm_post_attn|attn_out_norm", "post-attention"),
        (r"post_(feed_?forward|ffw|ffn|ff|mlp|moe|feedforward)_?(layer_?)?(norm|layernorm|layer_norm|ln)(_\d)?|post_norm", "post-mlp"),
        (r"(pre_)?(feed_?forward|ffw|ffn|ff|mlp|moe|feedforward|channel_mix\w*)_?(layer_?)?(norm|layernorm|layer_norm|ln)(_\d|exps)?"
         r"|pre_(feed_?forward|ffw|ffn|ff|mlp)_?(layer_?)?(norm|layernorm|layer_norm|ln)"
         r"|ln_?2|norm_?2|norm_?3|layer_?norm_?2|ln_mlp|ln_3|layernorm_after|layer_norm_after|final_layer_?norm|norm_ffn|norm_ff|norm_mlp|layernorm_2"
         r"|mlp\.(layer_?norm|norm)|(mlp\.)?linear_fc1\.layer_norm|layernorm_mlp\.layer_norm|feed_forward\.(layer_)?norm|ff_layer_?norm|ln_ff", "pre-mlp"),
        (r"(input|pre)_(layer_?)?(norm|layernorm|layer_norm|ln)|ln_?1|norm_?1|layer_?norm_?1|layernorm_before|layer_norm_before|operator_norm"
         r"|(pre_)?(attn|attention|self_attn|self_attention|sa|mixer|time_mix|temporal_\w+|mlstm)_?(layer_?)?(norm|layernorm|layer_norm|ln)(_2)?"
         r"|pre_(attn|attention|self_attn|sa|mixer|self_attention)_?(layer_?)?(norm|layernorm|layer_norm|ln)|ln_attn|norm_mlstm|norm_pre_attn"
         r"|layernorm_1|norm_self_att|linear_qkv\.layer_norm|layernorm_qkv\.layer_norm|ln_a", "pre-attention"),
        (r"ln_?0", "embedding"),
    )
)  # fmt: skip

EMBEDDING_NORM = re.compile(
    r"(^|\.)(embeddings?|word_embeddings|wte|embed_tokens|patch_embed)\.[\w.]*norm[\w.]*$|(^|\.)embeddings\.(ln|norm|layer_?norm)\w*$"
    r"|(^|[._])(emb\w*_(layer_?)?(norm|ln)|emb_ln|word_embeddings_layer_?norm|token_embd_norm|layer_?norm_emb\w*|pre_?lay(er|r)_?norm|ln_pre|pre_ln"
    r"|input_norm|embed(ding)?_(layer_?)?norm|post_conv_layernorm|norm_pre|layer_norm_emb|emb_norm|ln0|ln_in|norm_emb|pre_layrnorm|embed_ln|patch_norm|layernorm_pre)$"
)
# Norms that close a stack, most telling first. A last norm of another name counts after these.
FINAL_NORM = re.compile(
    r"(^|\.)(ln_f|norm_f|output_norm|final_(layer_?)?norm|final_rms_norm|ln_final|final_ln|ln_out|norm|layer_?norm|last_layer_?norm|out_norm|norm_out"
    r"|post_layer_?norm|ln_post|post_ln|layernorm_post|layernorm_final|norm_final|fc_norm|ln|encoder_norm|decoder_norm|transformer_norm)$"
)

# --- matrices ---------------------------------------------------------------------------------------------------
Place = Literal["attention", "mlp", "cross"]
READERS: dict[str, Place] = {
    **dict.fromkeys(
        "q_proj k_proj v_proj qkv qkv_proj c_attn query_key_value wqkv qkv_linear wq wk wv in_proj_weight packed_in_proj_weight query key value "
        "attn_q attn_k attn_v attn_qkv q_lin k_lin v_lin q k v q_a_proj kv_a_proj_with_mqa attn_q_a attn_kv_a_mqa in_proj in_proj_qkvz in_proj_ba "
        "in_proj_qkv in_proj_z in_proj_a in_proj_b ssm_in linear_qkv linear_q linear_k linear_v receptance to_q to_k to_v to_qkv qkvz "
        "time_mix_key time_mix_value time_mix_receptance time_mix_gate q_attn query_proj key_proj value_proj q_proj_layer att_proj attn_gate "
        "self_attn_q self_attn_k self_attn_v q_linear k_linear v_linear qkv_fused to_kv kv_proj queries keys values".split(),
        "attention",
    ),
    **dict.fromkeys(
        "gate_proj up_proj gate_up_proj fc1 c_fc w1 w3 wi wi_0 wi_1 lin1 dense_h_to_4h ffn_up ffn_gate linear1 fc11 fc12 fc_in w12 w_in "
        "weights_in ffn_gate_exps ffn_up_exps ffn_gate_up_exps ffn_gate_shexp ffn_up_shexp ffn_gate_inp linear_fc1 ff_proj up_gate_proj "
        "ffn_gate_up shared_expert_gate ffn_gate_inp_shexp wide_fc router v1 mlp_up mlp_gate fc_up lin_1 channel_mix_key channel_mix_receptance "
        "intermediate_dense ffn_gate_chexps ffn_up_chexps".split(),
        "mlp",
    ),
    **dict.fromkeys("cross_attn_q cross_attn_k cross_attn_v".split(), "cross"),
}  # fmt: skip
WRITERS: frozenset[str] = frozenset(
    "o_proj out_proj wo c_proj attn_output attn_out out_lin down_proj fc2 w2 lin2 dense_4h_to_h ffn_down linear2 fc_out o linear_proj "
    "linear_fc2 to_out ffn_output ffn_down_exps ffn_down_shexp ssm_out weights_out w_out output_dense cross_attn_o cross_attn_out attn_o time_mix_output "
    "channel_mix_value mlp_down fc_down lin_2 ff_out o_proj_layer attn_proj ffn_down_chexps".split()
)
# Names that are one thing or another by what is around them; matched on the end of the path, before the words above.
READER_PATHS: tuple[tuple[re.Pattern[str], Place], ...] = (
    (re.compile(r"(^|\.)intermediate\.dense(\.#)?$|^ffn$|(^|\.)ff\.layer_1$|(^|\.)(block_sparse_moe\.gate|router\.layer)$"), "mlp"),
    (re.compile(r"(^|\.)(feed_forward|ffn|channel_mix(ing)?|cmix)\.(key|receptance)$"), "mlp"),
    (re.compile(r"(^|\.)ff\.net\.0(\.proj)?$|(^|\.)mlp\.0$|(^|\.)mlpblock_\d\.dense_0$|(^|\.)(mlp|feed_forward|ffn)\.(fc_?1|dense_?1|wi|gate|linear_1|layers\.0)$"),
     "mlp"),
)  # fmt: skip
WRITER_PATHS = re.compile(
    r"(^|\.)(output|self_output)\.dense(\.#)?$|(^|\.)ff\.layer_2$|(^|\.)(attention|self_attention|attn)\.(dense|output|proj|out|wo)$"
    r"|(^|\.)(feed_forward|ffn|channel_mix(ing)?|cmix)\.value$|(^|\.)ff\.net\.2$|(^|\.)to_out\.0$|(^|\.)mlp\.[23]$|(^|\.)mlpblock_\d\.dense_1$"
    r"|(^|\.)(att|time_mix(ing)?|tmix)\.output$|(^|\.)multiheaddotproductattention_\d\.out$|(^|\.)(self_?attention|attn)_?\w*\.out$|(^|\.)mlp\.(dense_2|wo|linear_2)$"
)
# Words that look like a writer or reader of the stream and are neither.
NOT_A_MATRIX = re.compile(
    r"(^|\.)(pooler|transform|classifier|score|bottleneck|rel_embeddings|relative_attention_bias|position_bias|rotary\w*|conv\dd?|time_maa\w*"
    r"|feature_projection|feature_extractor|timestep\w*|time_embed\w*|adaln\w*|modulation|lora\w*)(\.|$)|adaln"
)
# The linear layer of an adaptive norm makes scales; it reads a condition, not the stream.
ADAPTIVE_NORM = re.compile(r"(^|\.)\w*norm\w*\.(linear|lin|mlp|proj|emb|silu|modulation|[#\d])(\.[#\d])?$")
CROSS = re.compile(
    r"(^|[._])(cross_?attn|crossattention|cross_attention|encoder_attn|encdecattention|encoder_attention|multihead_attn|attn2)(\.|_|$)"
)
CROSS_SOURCE = re.compile(
    r"(^|[._])(k|v|key|value|wk|wv|k_proj|v_proj|to_k|to_v|cross_attn_k|cross_attn_v|c_attn|kv|kv_proj)$"
)
ATTENTION = re.compile(r"(^|[._])(\w*attn\w*|\w*attention\w*|att|mixer|mamba|time_mix\w*|tmix|linear_attn)(\.|$)")
EMBEDDINGS = frozenset(
    "embed_tokens wte word_embeddings tok_embeddings token_embd shared tokens_embed embed_in token_embedding emb word_embedding "
    "text_embeddings embeddings embedding_layer token_embeddings tok_embed tok_embeds embed word_embed token_emb".split()
)
POSITIONS = re.compile(r"position|pos_?emb|token_type|^wpe$|temporal_embed")
UNEMBEDDINGS = frozenset(
    "lm_head embed_out vocab_projector output unembed logits lm_head_weight generator_lm_head output_layer".split()
)
UNEMBEDDING_PATHS = re.compile(
    r"(^|\.)(predictions|lm_head|cls)\.decoder$|^(model\.|transformer\.)?(output|head|lm_head)$|(^|\.)ff_out$(?<!blocks\.#\.ff_out)"
)

# Configuration keys that place the norm before or after the sub-layer: key -> value that means "before".
PLACEMENT_KEYS = {
    "do_layer_norm_before": True,
    "normalize_before": True,
    "pre_norm": True,
    "do_stable_layer_norm": True,
    "norm_first": True,
    "prenorm": True,
    "normalize_decoder_before": True,
}
