import sys, time, json, os, torch, argparse

sys.path.insert(0, os.getcwd())
sys.path.insert(0, ".gpu")
p = argparse.ArgumentParser()
p.add_argument("--steps", type=int, default=2000)
p.add_argument("--batch", type=int, default=256)
p.add_argument("--graph", type=int, default=1)
p.add_argument("--workers", type=int, default=15)
p.add_argument("--seconds", type=float, default=1e9)
p.add_argument("--start", default=None)
p.add_argument("--lr", type=float, default=2e-3)
p.add_argument("--vision", type=int, default=300)
p.add_argument("--seed", type=int, default=800000)
o = p.parse_args()
torch.set_float32_matmul_precision("high")
from lightning.pytorch import Trainer, seed_everything, Callback
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from fklit.emoji.caption_group_data import CaptionGroupsDataModule
from fklit.emoji.training.image_reward import ImageRewardTask
from fklit.emoji.training.degrade import Degrade
from fklit.emoji.training.denoised_means import DenoisedMeans
from fklit.emoji.training.regenerate import Regenerate
from fklit.emoji.training import frozen_pipeline

OUT = os.environ.get("OUT", "/tmp/out")
os.makedirs(OUT, exist_ok=True)
seed_everything(5)
dm = CaptionGroupsDataModule(
    batch_size=o.batch,
    num_groups=10_000_000 if o.seconds > 1e8 else o.steps * o.batch,
    num_val_groups=1024,
    seed=o.seed,
    num_workers=o.workers,
)
task = ImageRewardTask(
    degrade=Degrade(6.0, 0.3, share=0.4, vae_folder="fklit:emoji_scenes/vae", vae_share=0.3, latent_noise=1.0),
    denoised=DenoisedMeans("fklit:emoji_scenes", 0.25),
    regenerate=Regenerate("fklit:emoji_scenes", 0.25),
    vision_steps=o.vision,
    learning_rate=o.lr,
    export_dir=OUT + "/folder",
    start_from=o.start,
)
if o.graph and torch.cuda.is_available():
    from fast_unet import Graphed
    import types

    shared = {}

    def load(self, device):
        if "p" not in shared:
            from diffusers import StableDiffusionPipeline
            from fklit import assets

            pipe = StableDiffusionPipeline.from_pretrained(
                assets.shipped(self.folder), safety_checker=None, dtype=torch.float32
            )
            for part in (pipe.unet, pipe.vae, pipe.text_encoder):
                part.requires_grad_(False).eval()
            pipe.to(device)
            pipe.unet.to(torch.bfloat16)
            g = Graphed(pipe.unet)
            pipe.unet.forward = lambda s, t, encoder_hidden_states=None: g(s, t, encoder_hidden_states)
            shared["p"] = pipe
        return shared["p"]

    frozen_pipeline.FrozenPipeline.load = load


class Clock(Callback):
    def __init__(s):
        s.t0 = time.time()
        s.n = 0

    def on_train_batch_end(s, trainer, mod, out, batch, i):
        s.n += 1
        if s.n % 50 == 0:
            m = trainer.callback_metrics
            print(
                s.n,
                round(time.time() - s.t0, 1),
                {k[6:]: round(float(v), 4) for k, v in m.items() if k.startswith("train/")},
                {k[4:]: round(float(v), 4) for k, v in m.items() if k.startswith("val/")},
                flush=True,
            )


trainer = Trainer(
    accelerator="auto",
    devices=1,
    precision="bf16-mixed" if torch.cuda.is_available() else "32-true",
    max_steps=o.steps,
    max_epochs=-1,
    gradient_clip_val=1.0,
    val_check_interval=500,
    check_val_every_n_epoch=None,
    num_sanity_val_steps=0,
    log_every_n_steps=20,
    logger=CSVLogger(OUT, name="log", version=""),
    callbacks=[EMAWeightAveraging(decay=0.995), Clock()],
    enable_progress_bar=False,
    enable_model_summary=False,
    enable_checkpointing=False,
    default_root_dir=OUT,
)
t = time.time()
trainer.fit(task, datamodule=dm)
print("fit", time.time() - t, trainer.callback_metrics)
