"""Random diffusers pipelines of a few thousand weights, one for each class that the kit has been tried with."""

import inspect

import diffusers as d
import torch
import transformers as t
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = "a the red blue green circle square star on left right of make remove add it large small one two three".split()
CHAT = ("{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}{{ c.text }}"
        "{% endfor %}{% endif %} {% endfor %}")
QWEN = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<|endoftext|>"]


def words(length=77, more=(), cls=t.PreTrainedTokenizerFast, end="</s>", **how):
    """A tokenizer of whole words: pad 0, end 1, unknown 2."""
    vocabulary = {w: i for i, w in enumerate(dict.fromkeys(["<pad>", "</s>", "<unk>", *WORDS, *more]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return cls(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=length,
               additional_special_tokens=list(more), **how)


def clip_text(projection=False):
    config = t.CLIPTextConfig(vocab_size=len(WORDS) + 3, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                              num_attention_heads=2, max_position_embeddings=77, pad_token_id=0, bos_token_id=2,
                              eos_token_id=1, projection_dim=32)
    return (t.CLIPTextModelWithProjection if projection else t.CLIPTextModel)(config).eval()


def flux(cls=d.FluxPipeline, width=32, heads=2, double=1, single=1):
    """The testbed's own make: 48 pixels are 9 tokens of 256 channels."""
    torch.manual_seed(0)
    head = width // heads
    third = head // 8 * 2
    transformer = d.FluxTransformer2DModel(
        patch_size=1, in_channels=256, num_layers=double, num_single_layers=single, attention_head_dim=head,
        num_attention_heads=heads, joint_attention_dim=width, pooled_projection_dim=32, guidance_embeds=False,
        axes_dims_rope=(head - 2 * third, third, third))
    vae = d.AutoencoderTiny(encoder_block_out_channels=(16,) * 4, decoder_block_out_channels=(16,) * 4,
                            num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4, latent_channels=64)
    t5 = t.T5EncoderModel(t.T5Config(vocab_size=len(WORDS) + 3, d_model=width, d_kv=head, d_ff=2 * width, num_layers=2,
                                     num_heads=heads, feed_forward_proj="gated-gelu")).eval()
    scheduler = d.UniPCMultistepScheduler(use_flow_sigmas=True, flow_shift=3, prediction_type="sample")
    return cls(scheduler=scheduler, vae=vae, text_encoder=clip_text(), tokenizer=words(), text_encoder_2=t5,
               tokenizer_2=words(512), transformer=transformer)


def kontext():
    return flux(d.FluxKontextPipeline)


def _vae(channels=4, **how):
    return d.AutoencoderKL(**how, block_out_channels=(32, 64), in_channels=3, out_channels=3, latent_channels=channels,
                           down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)


def _unet(channels=4, **how):
    return d.UNet2DConditionModel(**dict(
        block_out_channels=(32, 64), layers_per_block=1, sample_size=24, in_channels=channels, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32) | how)


def stable_diffusion(cls=d.StableDiffusionPipeline, channels=4):
    torch.manual_seed(0)
    return cls(vae=_vae(), unet=_unet(channels), text_encoder=clip_text(), tokenizer=words(), safety_checker=None,
               feature_extractor=None, requires_safety_checker=False, scheduler=d.DDIMScheduler(clip_sample=False))


def instruct():
    return stable_diffusion(d.StableDiffusionInstructPix2PixPipeline, 8)


def xl(cls=d.StableDiffusionXLPipeline, channels=4):
    torch.manual_seed(0)
    more = dict(attention_head_dim=(2, 4), use_linear_projection=True, addition_embed_type="text_time", cross_attention_dim=64,
                addition_time_embed_dim=8, transformer_layers_per_block=(1, 2), projection_class_embeddings_input_dim=80)
    return cls(vae=_vae(), unet=_unet(channels, **more), text_encoder=clip_text(), text_encoder_2=clip_text(True),
               tokenizer=words(), tokenizer_2=words(), scheduler=d.EulerDiscreteScheduler())


def xl_instruct():
    return xl(d.StableDiffusionXLInstructPix2PixPipeline, 8)


def _flux2_parts():
    torch.manual_seed(0)
    vae = d.AutoencoderKLFlux2(
        sample_size=32, in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=1,
        up_block_types=("UpDecoderBlock2D",) * 2, block_out_channels=(4, 4), layers_per_block=1, norm_num_groups=1,
        use_quant_conv=False, use_post_quant_conv=False)
    return vae, d.FlowMatchEulerDiscreteScheduler()


def _flux2_transformer(width):
    return d.Flux2Transformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=width, timestep_guidance_channels=256, axes_dims_rope=[4, 4, 4, 4])


def flux2_klein():
    vae, scheduler = _flux2_parts()
    tokenizer = words(512, chat_template=CHAT)
    qwen = t.Qwen3ForCausalLM(t.Qwen3Config(
        hidden_size=16, intermediate_size=16, num_hidden_layers=27, num_attention_heads=2, num_key_value_heads=2, head_dim=8,
        vocab_size=len(tokenizer), max_position_embeddings=512)).eval()
    return d.Flux2KleinPipeline(vae=vae, scheduler=scheduler, text_encoder=qwen, tokenizer=tokenizer,
                                transformer=_flux2_transformer(48))


def flux2():
    vae, scheduler = _flux2_parts()
    tokenizer = words(512, ["[IMG]", "[IMG_BREAK]", "[IMG_END]"], chat_template=CHAT)
    text = dict(model_type="mistral", hidden_size=16, intermediate_size=16, num_hidden_layers=30, num_attention_heads=2,
                num_key_value_heads=2, head_dim=8, vocab_size=len(tokenizer), max_position_embeddings=1024)
    vision = dict(model_type="pixtral", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                  image_size=56, patch_size=14)
    mistral = t.Mistral3ForConditionalGeneration(t.Mistral3Config(
        text_config=text, vision_config=vision, image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"))).eval()
    return d.Flux2Pipeline(vae=vae, scheduler=scheduler, text_encoder=mistral, tokenizer=tokenizer,  # a PixtralProcessor in truth
                           transformer=_flux2_transformer(48))


def qwen(cls=d.QwenImagePipeline):
    torch.manual_seed(0)
    z = 4
    vae = d.AutoencoderKLQwenImage(base_dim=z * 6, z_dim=z, dim_mult=[1, 2, 4], num_res_blocks=1,
                                   temperal_downsample=[False, True],
                                   latents_mean=[0.0] * z, latents_std=[1.0] * z)
    transformer = d.QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=3,
        joint_attention_dim=16, guidance_embeds=False, axes_dims_rope=(8, 4, 4))
    tokenizer = words(1024, QWEN)
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in
           dict(image_token_id="image_pad", video_token_id="video_pad", vision_start_token_id="vision_start",
                vision_end_token_id="vision_end").items()}
    config = t.Qwen2_5_VLConfig(
        text_config=dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                         num_key_value_heads=2, vocab_size=len(tokenizer), rope_theta=1e6,
                         rope_parameters=dict(rope_type="default", mrope_section=[1, 1, 2], rope_theta=1e6)),
        vision_config=dict(depth=2, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=16,
                           fullatt_block_indexes=[1]), **ids)
    more = {"processor": StandIn(tokenizer)} if "processor" in inspect.signature(cls.__init__).parameters else {}
    return cls(scheduler=d.FlowMatchEulerDiscreteScheduler(), vae=vae, tokenizer=tokenizer, transformer=transformer,
               text_encoder=t.Qwen2_5_VLForConditionalGeneration(config).eval(), **more)


class StandIn:
    """What Qwen2VLProcessor does with a picture and a text; the real one cannot be made without torchvision."""

    def __init__(self, tokenizer):
        self.tokenizer, self.images = tokenizer, t.Qwen2VLImageProcessorPil(max_pixels=56 * 56, patch_size=14)

    def __call__(self, text, images, padding, return_tensors):
        seen = self.images(images=images, return_tensors="pt")
        patches = int(seen["image_grid_thw"][0].prod()) // 4
        text = [one.replace("<|image_pad|>", "<|image_pad|> " * patches) for one in text]
        return t.BatchFeature(dict(self.tokenizer(text, padding=padding, return_tensors="pt")) | dict(seen))


def qwen_edit():
    return qwen(d.QwenImageEditPipeline)


def qwen_edit_plus():
    return qwen(d.QwenImageEditPlusPipeline)


def stable_diffusion_3():
    """Without its largest text encoder, as it is often used."""
    torch.manual_seed(0)
    transformer = d.SD3Transformer2DModel(
        sample_size=24, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        caption_projection_dim=16, joint_attention_dim=64, pooled_projection_dim=64, out_channels=4, pos_embed_max_size=32)
    return d.StableDiffusion3Pipeline(
        transformer=transformer, scheduler=d.FlowMatchEulerDiscreteScheduler(), vae=_vae(shift_factor=0.1),
        text_encoder=clip_text(True), tokenizer=words(), text_encoder_2=clip_text(True), tokenizer_2=words(),
        text_encoder_3=None, tokenizer_3=None)


def pixart():
    torch.manual_seed(0)
    transformer = d.PixArtTransformer2DModel(
        sample_size=24, num_layers=1, attention_head_dim=8, num_attention_heads=2, caption_channels=32, cross_attention_dim=16)
    t5 = t.T5EncoderModel(t.T5Config(vocab_size=len(WORDS) + 3, d_model=32, d_kv=16, d_ff=32, num_layers=1, num_heads=2)).eval()
    return d.PixArtSigmaPipeline(transformer=transformer, vae=_vae(), scheduler=d.DDIMScheduler(clip_sample=False),
                                 text_encoder=t5, tokenizer=words(300))


def cogview4():
    torch.manual_seed(0)
    transformer = d.CogView4Transformer2DModel(
        in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2, text_embed_dim=16,
        time_embed_dim=8, condition_dim=4)
    glm = t.GlmForCausalLM(t.GlmConfig(
        vocab_size=len(WORDS) + 3, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, pad_token_id=0)).eval()
    return d.CogView4Pipeline(transformer=transformer, vae=_vae(), text_encoder=glm, tokenizer=words(1024),
                              scheduler=d.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True))


def strong(pipe):
    """The pipeline with weights that make pictures differ: those of a fresh transformer and decoder hardly show the text."""
    torch.manual_seed(1)
    for part in (getattr(pipe, name, None) for name in ("transformer", "unet")):
        for weights in part.parameters() if part is not None else ():
            if weights.ndim > 1:
                torch.nn.init.normal_(weights, std=1.5 * weights[0].numel() ** -0.5)
    return pipe


IMAGE = dict(flux=flux, stable_diffusion=stable_diffusion, xl=xl, qwen=qwen, flux2=flux2, flux2_klein=flux2_klein,
             stable_diffusion_3=stable_diffusion_3, pixart=pixart, cogview4=cogview4)
EDIT = dict(kontext=kontext, instruct=instruct, xl_instruct=xl_instruct, qwen_edit=qwen_edit, qwen_edit_plus=qwen_edit_plus,
            flux2=flux2, flux2_klein=flux2_klein)
