"""Graphed bf16 forward of a frozen module with static shapes."""

import torch, time


class Graphed:
    def __init__(self, unet):
        self.unet, self.graphs = unet, {}
        self.plain = unet.forward

    def __call__(self, sample, timestep, encoder_hidden_states=None, **kw):
        from types import SimpleNamespace

        key = tuple(sample.shape)
        if key not in self.graphs:
            s = torch.zeros_like(sample, dtype=torch.bfloat16)
            t = torch.zeros((), device=sample.device, dtype=torch.long)
            e = torch.zeros_like(encoder_hidden_states, dtype=torch.bfloat16)
            with torch.autocast("cuda", enabled=False), torch.no_grad():
                st = torch.cuda.Stream()
                st.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(st):
                    for _ in range(3):
                        self.plain(s, t, encoder_hidden_states=e)
                torch.cuda.current_stream().wait_stream(st)
                g = torch.cuda.CUDAGraph()
                with torch.cuda.graph(g):
                    o = self.plain(s, t, encoder_hidden_states=e).sample
            self.graphs[key] = (g, s, t, e, o)
        g, s, t, e, o = self.graphs[key]
        s.copy_(sample)
        t.copy_(torch.as_tensor(timestep))
        e.copy_(encoder_hidden_states)
        g.replay()
        return SimpleNamespace(sample=o.float())


def speed_up(module, device):
    pipe = module.load(device)
    pipe.unet.to(torch.bfloat16)
    pipe.vae.to(torch.bfloat16)
    return pipe
