"""Backbones: nn.Modules from images (N,in_channels,H,W) of any size to features (N,num_features,H',W')."""
